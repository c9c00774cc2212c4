"""Finds and loads the shared libraries of a TensorRT.

trt_rt looks for them in the folders of ``TRT_RT_TENSORRT_LIBDIR``, then in the Python packages that contain
them. It leaves the others to the system's loader (``LD_LIBRARY_PATH``, ``ldconfig``), when the bindings ask
for them.

The libraries of different TensorRTs define the same symbols, so none may be loaded with RTLD_GLOBAL. A second
library in the process would bind to functions of the first and crash. (Seen with the bindings of TensorRT
10.16.1, after TensorRT-RTX 1.7.1 was loaded with RTLD_GLOBAL.)
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
"""The environment variable with the folders to search first, separated by ":"."""

_keep_open: dict[Path, ctypes.CDLL] = {}


@dataclass(frozen=True)
class LoadedLibrary:
    """The library that a module of bindings uses.

    Attributes
    ----------
    path : str
        The library's file.
    version : tuple of int
        Major, minor and patch, which the library itself reports.
    """

    path: str
    version: tuple[int, int, int]


def load_libraries(names: Sequence[str], packages: Sequence[str]) -> None:
    """Load the libraries of a backend, so that its bindings find them in the process.

    Parameters
    ----------
    names : sequence of str
        Names without ``lib`` and ``.so``. Each library may need the ones before it.
    packages : sequence of str
        Python packages that may contain the libraries. They are not imported here, because an import may load
        libraries in any order and hide failures.

    Raises
    ------
    BackendError
        `TRT_RT_TENSORRT_LIBDIR` names something that is not a folder.
    OSError
        A library was found but does not load.
    """
    if not names:
        return
    folders = [*library_folders(), *_package_folders(packages)]
    for name in names:
        path = find_library(name, folders)
        if path is not None and path not in _keep_open:
            _keep_open[path] = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)


def library_folders() -> list[Path]:
    """Return the folders of `TRT_RT_TENSORRT_LIBDIR`.

    Raises
    ------
    BackendError
        It names something that is not a folder.
    """
    folders = [Path(folder) for folder in os.environ.get(LIBRARY_FOLDERS, "").split(os.pathsep) if folder]
    for folder in folders:
        if not folder.is_dir():
            raise BackendError(
                f"{LIBRARY_FOLDERS} names {str(folder)!r}, which is not a folder. Set it to the folder that "
                "has the libraries of TensorRT, or unset it."
            )
    return folders


def _package_folders(packages: Sequence[str]) -> Iterator[Path]:
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            yield Path(folder)


def find_library(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the file of a library in the first folder that has it.

    Parameters
    ----------
    name : str
        The name without ``lib`` and ``.so``.
    folders : sequence of Path
        The folders to search.

    Returns
    -------
    Path or None
        The file, with links resolved. If a folder has several versions: the newest with the kind of name that
        programs ask for (``libX.so.10``), or else the newest of all.
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
    """Return the library that a module of bindings uses.

    Parameters
    ----------
    bindings : module
        An imported module.

    Returns
    -------
    LoadedLibrary or None
        None if the module is not an extension over a TensorRT library (the reference backend).
    """
    extension = sys.modules.get(getattr(bindings.ILogger, "__module__", ""))
    if extension is None or not str(getattr(extension, "__file__", "")).endswith(".so"):
        return None
    # A lookup from the extension finds the function that the extension itself calls.
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
