"""Refuses packages that a free-threaded Python (PEP 703) cannot import."""

from __future__ import annotations

import sysconfig
from importlib.util import find_spec
from pathlib import Path

from trt_rt.errors import BackendError

__all__ = ["refuse_extensions_for_a_gil"]

_IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


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
