"""What is otherwise in a free-threaded Python (PEP 703)."""

from __future__ import annotations

import gc
import sysconfig
import time
import weakref
from importlib.util import find_spec
from pathlib import Path

from trt_rt.errors import BackendError

__all__ = ["destroy_what_is_left_to_threads", "refuse_extensions_for_a_gil"]

_IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def destroy_what_is_left_to_threads() -> None:
    """Destroy objects that nobody refers to any more, also those that other threads have made.

    Free-threaded Python leaves the destruction of an object to the thread that made it ("biased reference
    counting"), which comes to it when it next runs Python code: a thread that waits may take long, and one
    that waits for what the caller holds does not before. Only the collector does it for them. With a GIL
    nothing is left to do.
    """
    if not _IS_FREE_THREADED:
        return
    witness = _Cycle()
    is_gone = weakref.ref(witness)
    del witness
    # While another thread collects, gc.collect does nothing, and what that thread has looked at may be from
    # before. It may also be in a finalizer that waits for this thread, so that this has an end.
    for _ in range(100):
        gc.collect()
        if is_gone() is None:
            return
        time.sleep(0.01)


class _Cycle:
    """Goes with the next collection that begins."""

    def __init__(self) -> None:
        self.itself = self


def refuse_extensions_for_a_gil(modules: tuple[str, ...]) -> None:
    """Refuse packages whose compiled modules are for a Python with a GIL.

    Importing them ends the process, and pip installs them: NVIDIA tags its wheels ``cp314-none``, which
    fits cp314t too. What is compiled for free threading never calls ``_Py_Dealloc``; with a GIL Py_DECREF
    does.

    Parameters
    ----------
    modules : tuple of str
        Names of packages; those that are not installed are passed over.

    Raises
    ------
    BackendError
        Naming the file. Never where there is a GIL.
    """
    if not _IS_FREE_THREADED:
        return
    for module in modules:
        spec = find_spec(module)
        for folder in (spec and spec.submodule_search_locations) or ():
            for extension in Path(folder).glob("*.so"):
                if b"\0_Py_Dealloc\0" in extension.read_bytes():
                    raise BackendError(
                        f"{extension} is compiled for a Python with a GIL, and importing it into this "
                        "free-threaded Python would end the process. Use a Python with a GIL."
                    )
