"""Where the shared libraries of a TensorRT are found, and how they are loaded.

They are looked for in the folders of ``TRT_RT_TENSORRT_LIBDIR``, then in the Python packages that carry them,
and else left to the system's loader (``LD_LIBRARY_PATH``, ``ldconfig``), when the bindings ask for them.

The libraries of different TensorRTs define the same symbols, so none may be loaded with RTLD_GLOBAL: a second
one in the process would bind to the first one's functions and crash. (Seen with TensorRT-RTX 1.7.1 loaded so
before the bindings of TensorRT 10.16.1.)
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_rt.errors import BackendError

__all__ = [
    "LIBRARY_FOLDERS",
    "LoadedLibrary",
    "find_library",
    "library_folders",
    "load_libraries",
    "loaded_by",
]

LIBRARY_FOLDERS = "TRT_RT_TENSORRT_LIBDIR"
"""Environment variable: folders to look into first, with ":" between them."""

_keep_open: dict[Path, ctypes.CDLL] = {}


@dataclass(frozen=True)
class LoadedLibrary:
    """The library that a module of bindings got from the loader.

    Attributes
    ----------
    path : str
        Its file.
    version : tuple of int
        Major, minor and patch, as the library itself says.
    """

    path: str
    version: tuple[int, int, int]


def load_libraries(names: Sequence[str], packages: Sequence[str]) -> None:
    """Load the libraries of a backend, so that its bindings find them in the process.

    Parameters
    ----------
    names : sequence of str
        Without ``lib`` and ``.so``; each needs those before it.
    packages : sequence of str
        Python packages that may carry them. They are not imported here: an
        import may load libraries in any order, and hide that one does not load.

    Raises
    ------
    BackendError
        If `TRT_RT_TENSORRT_LIBDIR` names no folder.
    OSError
        If a library that was found does not load.
    """
    if not names:
        return
    folders = [*library_folders(), *_package_folders(packages)]
    for name in names:
        path = find_library(name, folders)
        if path is not None and path not in _keep_open:
            _keep_open[path] = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)


def library_folders() -> list[Path]:
    """The folders of `TRT_RT_TENSORRT_LIBDIR`.

    Raises
    ------
    BackendError
        If one is no folder.
    """
    folders = [Path(folder) for folder in os.environ.get(LIBRARY_FOLDERS, "").split(os.pathsep) if folder]
    for folder in folders:
        if not folder.is_dir():
            raise BackendError(
                f"{LIBRARY_FOLDERS} names {str(folder)!r}, which is no folder. Set it to the folder that has "
                "the libraries of TensorRT, or unset it."
            )
    return folders


def _package_folders(packages: Sequence[str]) -> Iterator[Path]:
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            yield Path(folder)


def find_library(name: str, folders: Sequence[Path]) -> Path | None:
    """The file of a library in the first folder that has it.

    Parameters
    ----------
    name : str
        Without ``lib`` and ``.so``.
    folders : sequence of Path
        Where to look.

    Returns
    -------
    Path or None
        Links resolved. Of several versions in one folder that which bears the name that programs ask for
        (``libX.so.10``), else the newest.
    """
    for folder in folders:
        named = re.compile(rf"lib{re.escape(name)}\.so((?:\.\d+)*)")
        found = {match[1]: path for path in folder.iterdir() if (match := named.fullmatch(path.name))}
        if found:
            versions = [suffix for suffix in found if suffix.count(".") == 1] or list(found)
            return found[max(versions, key=_version_numbers)].resolve()
    return None


def _version_numbers(suffix: str) -> tuple[int, ...]:
    return tuple(int(number) for number in suffix.split(".")[1:])


def loaded_by(bindings: Any) -> LoadedLibrary | None:
    """The library behind a module of bindings.

    Parameters
    ----------
    bindings : module
        An imported one.

    Returns
    -------
    LoadedLibrary or None
        None if the module is not an extension over a TensorRT library (the reference backend).
    """
    extension = sys.modules.get(getattr(bindings.ILogger, "__module__", ""))
    if extension is None or not str(getattr(extension, "__file__", "")).endswith(".so"):
        return None
    # Looked up from the extension, a symbol is found where its own calls go, whatever else is loaded.
    try:
        function = ctypes.CDLL(extension.__file__).getInferLibVersion
    except AttributeError:
        return None
    number = int(function())
    return LoadedLibrary(_file_of(function), (number // 10_000, number // 100 % 100, number % 100))


class _DlInfo(ctypes.Structure):
    """``Dl_info`` of dlfcn.h."""

    _fields_ = (
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    )


def _file_of(function: Any) -> str:
    info = _DlInfo()
    address = ctypes.cast(function, ctypes.c_void_p)
    ctypes.CDLL(None).dladdr(address, ctypes.byref(info))
    return os.fsdecode(info.dli_fname or b"")
