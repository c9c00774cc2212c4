"""A check for packages that a free-threaded Python (PEP 703) cannot import."""

from __future__ import annotations

import sysconfig
from importlib.util import find_spec
from pathlib import Path

from trt_rt.errors import BackendError

__all__ = ["refuse_extensions_for_a_gil"]

_IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def refuse_extensions_for_a_gil(modules: tuple[str, ...]) -> None:
    """Refuse packages whose compiled modules are for a Python with a GIL.

    pip installs such packages into a free-threaded Python, because NVIDIA tags its wheels ``cp314-none``,
    which fits cp314t too. Importing one ends the process. A module compiled for a GIL calls ``_Py_Dealloc``,
    from Py_DECREF. A module compiled for free threading never does.

    Parameters
    ----------
    modules : tuple of str
        Names of packages. Packages that are not installed are ignored.

    Raises
    ------
    BackendError
        A module is compiled for a GIL and this Python has none. The message names the file.
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
