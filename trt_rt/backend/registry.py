"""The five backends by name, each imported on first use."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from trt_rt._core.critical import Gate
from trt_rt.backend.adapter import Backend
from trt_rt.backend.dispatch import DispatchRuntime
from trt_rt.backend.free_threading import refuse_extensions_for_a_gil
from trt_rt.backend.lean import LeanRuntime
from trt_rt.backend.reference import Reference
from trt_rt.backend.rtx import TensorRTRTX
from trt_rt.backend.shared_libraries import LIBRARY_FOLDERS, load_libraries
from trt_rt.backend.tensorrt import TensorRT
from trt_rt.errors import BackendError

__all__ = ["BUILDERS", "NAMES", "is_registered", "load"]

_ADAPTERS: dict[str, type[TensorRT | TensorRTRTX | Reference]] = {
    "tensorrt": TensorRT,
    "tensorrt_lean": LeanRuntime,
    "tensorrt_dispatch": DispatchRuntime,
    "tensorrt_rtx": TensorRTRTX,
    "reference": Reference,
}

NAMES = tuple(_ADAPTERS)
"""The names of all backends, in the order of preference."""

BUILDERS = ("tensorrt", "tensorrt_rtx", "reference")
"""The backends that can build, in the order of preference. The lean and dispatch runtimes only run plans."""

_loaded: dict[str, Backend] = {}
_gate = Gate()


def load(name: str) -> Backend:
    """Return the backend of a name, imported on first use.

    Parameters
    ----------
    name : {"tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx", "reference"}
        One of `NAMES`.

    Raises
    ------
    BackendError
        There is no backend of that name, it is not installed, or its libraries do not load.
    """
    if name not in NAMES:
        raise BackendError(f"there is no backend {name!r}; there are {', '.join(NAMES)}, and 'auto'.")
    return _gate.run(_load, name)


def _load(name: str) -> Backend:
    if name not in _loaded:
        backend = _ADAPTERS[name](name, _import(name))
        backend.check_library()
        _loaded[name] = backend
    return _loaded[name]


def is_registered(backend: Backend) -> bool:
    """Whether `load` gives this very backend for its name."""
    return _loaded.get(backend.name) is backend


def _import(name: str) -> ModuleType:
    adapter = _ADAPTERS[name]
    problem = "it is not installed"
    for candidate in adapter.modules:
        if importlib.util.find_spec(candidate) is None:
            continue
        try:
            refuse_extensions_for_a_gil(adapter.modules)
            load_libraries(adapter.libraries, adapter.library_packages)
            module = importlib.import_module(candidate)
        except BackendError as error:
            raise BackendError(f"backend {name!r}: {error}") from None
        except Exception as error:  # PyPI's placeholder and broken installs raise any type
            problem = _explain_import_error(candidate, error)
            continue
        if hasattr(module, "Runtime"):
            return module
        problem = f"the installed package {candidate} is not TensorRT: it has no Runtime"
    raise BackendError(f"backend {name!r}: {problem}. {adapter.how_to_install}")


def _explain_import_error(module: str, error: Exception) -> str:
    reason = str(error).strip().rstrip(".")
    if isinstance(error, OSError) or (isinstance(error, ImportError) and ".so" in reason):
        return (
            f"{module} is installed but its library does not load: {reason} (looked for in "
            f"{LIBRARY_FOLDERS}, in Python packages and where the system's loader looks)"
        )
    return f"{module} is installed but does not import: {reason}"
