"""Plugins: a user's own operators, in shared libraries."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, NamedTuple

from trt_rt._core.critical import Gate
from trt_rt.backend.adapter import Backend
from trt_rt.backend.choice import first
from trt_rt.backend.registry import NAMES, load
from trt_rt.backend.shared_libraries import LIBRARY_FOLDERS, find_library, library_folders
from trt_rt.errors import BackendError

__all__ = ["TENSORRT_PLUGINS", "Plugin", "load_plugins"]

TENSORRT_PLUGINS = "nvinfer_plugin"
"""The name of the library of TensorRT's own plugins."""

_ENTRY_POINTS = ("getCreators", "getPluginCreators")
"""The functions that TensorRT calls in a plugin library: since version 10, and before."""

_loaded: dict[tuple[str, str], tuple[Plugin, ...]] = {}
_keep_open: list[ctypes.CDLL] = []
_gate = Gate()


class Plugin(NamedTuple):
    """A plugin that a backend knows.

    Attributes
    ----------
    name, version, namespace : str
        The creator's values. A plan finds the plugin by all three.
    """

    name: str
    version: str
    namespace: str


def load_plugins(
    path_or_name: str | os.PathLike[str], *, backend: str | Backend = "auto"
) -> tuple[Plugin, ...]:
    """Register the plugins of a library with a backend, for its builder and for plans that use them.

    The plugins stay until the process ends. A library that is already loaded is not loaded again. Loading a
    library runs its code, so load only files that you trust.

    Parameters
    ----------
    path_or_name : path-like
        The library's file; or its name without ``lib`` and ``.so``, which is looked for in the folders of
        ``TRT_RT_TENSORRT_LIBDIR`` and then by the system's loader; or "nvinfer_plugin" for TensorRT's own
        plugins.
    backend : str or Backend, optional
        The backend that gets the plugins. Default: the first installed backend of `trt_rt.backends`, except
        the reference backend.

    Returns
    -------
    tuple of Plugin
        The plugins of the library. With "nvinfer_plugin": all plugins that are registered afterwards.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    BackendError
        The backend is missing or has no plugins. The library does not load or has no plugins. A plugin of the
        same name is already registered.
    """
    chosen = _choose_backend(backend)
    registry = chosen.plugin_registry()
    library = os.fspath(path_or_name)
    return _gate.run(_load_once, library, chosen, registry)


def _load_once(library: str, backend: Backend, registry: Any) -> tuple[Plugin, ...]:
    if library == TENSORRT_PLUGINS:
        return _initialize_own(backend, registry)
    path = _find(library)
    key = (backend.name, path)
    if key not in _loaded:
        _loaded[key] = _load(path, backend, registry)
    return _loaded[key]


def _choose_backend(backend: str | Backend) -> Backend:
    if isinstance(backend, Backend):
        return backend
    if backend != "auto":
        return load(backend)
    choice = first(_why_not, [name for name in NAMES if name != "reference"])
    if choice.name is None:
        problems = " ".join(choice.passed_over.values())
        raise BackendError(f"there is no TensorRT to load plugins into: {problems}")
    return load(choice.name)


def _why_not(name: str) -> str:
    load(name)  # raises BackendError if the backend is missing
    return ""


def _initialize_own(backend: Backend, registry: Any) -> tuple[Plugin, ...]:
    initialize = getattr(backend.api, "init_libnvinfer_plugins", None)
    if initialize is None:
        raise BackendError(
            f"backend {backend.name!r} has none of TensorRT's own plugins: they come with 'tensorrt' and "
            "'tensorrt_rtx'. It can load plugin libraries."
        )
    if not initialize(backend.logger, ""):
        raise BackendError(f"{backend.name} did not initialise its plugins. {_reason(backend)}")
    return _registered(registry)


def _find(library: str) -> str:
    """Return an absolute path, or a file name for the system's loader."""
    path = Path(library)
    if path.is_file():
        return str(path.resolve())
    if os.sep in library or path.suffix:
        raise FileNotFoundError(f"there is no plugin library {library!r} (from {os.getcwd()!r}).")
    found = find_library(library, library_folders())
    return str(found) if found else f"lib{library}.so"


def _load(path: str, backend: Backend, registry: Any) -> tuple[Plugin, ...]:
    before = set(_registered(registry))
    opened = _open(path, backend)
    has_entry_point = any(hasattr(opened, name) for name in _ENTRY_POINTS)
    if has_entry_point and registry.load_library(path) is None:
        raise BackendError(
            f"{backend.name} takes no plugins from {path!r}: the library has none, or a plugin of the same "
            f"name, version and namespace is already registered. {_reason(backend)}"
        )
    new = tuple(plugin for plugin in _registered(registry) if plugin not in before)
    if not new:
        raise BackendError(
            f"{path!r} is not a plugin library for {backend.name}: it has no function {_ENTRY_POINTS[0]}, "
            "and loading it registered no plugin. A library that registers its plugins itself must be linked "
            f"with the library of this backend ({_own_library(backend)})."
        )
    _keep_open.append(opened)
    return new


def _open(path: str, backend: Backend) -> ctypes.CDLL:
    """Load a library with every symbol resolved.

    TensorRT resolves symbols lazily, so a missing symbol would end the process at its first call. Here it is
    an exception. Loading also runs the code of a library that registers its plugins itself. The library is
    not loaded with RTLD_GLOBAL: every plugin library exports the same names, so the next library would call
    functions of this one.
    """
    try:
        return ctypes.CDLL(path, mode=os.RTLD_NOW | ctypes.RTLD_LOCAL)
    except OSError as error:
        raise BackendError(
            f"the plugin library {path!r} does not load: {error}. Check that it was built for this machine, "
            "that the libraries it needs are found, and that it is linked with the library of "
            f"{backend.name} ({_own_library(backend)}). trt_rt looks for a name in "
            f"{LIBRARY_FOLDERS} and where the system's loader looks."
        ) from error


def _own_library(backend: Backend) -> str:
    return backend.library.path if backend.library else backend.title


def _registered(registry: Any) -> tuple[Plugin, ...]:
    return tuple(
        Plugin(creator.name, creator.plugin_version, creator.plugin_namespace)
        for creator in registry.all_creators
    )


def _reason(backend: Backend) -> str:
    message = backend.log.take_error()
    return f"It says: {message}" if message else "It logged no reason."
