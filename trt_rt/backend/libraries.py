"""Import of each backend, with its shared libraries.

The libraries of different TensorRTs define the same symbols, so none may be loaded with RTLD_GLOBAL: a
second one in the process would bind to the first one's functions and crash. (Seen with TensorRT-RTX 1.7.1
loaded so before the bindings of TensorRT 10.16.1.)
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import threading
from pathlib import Path
from types import ModuleType

from trt_rt.backend.adapter import Backend
from trt_rt.errors import BackendError

__all__ = ["NAMES", "load"]

NAMES = ("tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx", "reference")

_HOW_TO_INSTALL = {
    "tensorrt": "It is not on PyPI: pip install --extra-index-url https://pypi.nvidia.com tensorrt, or use a "
    "container or system package of NVIDIA's",
    "tensorrt_lean": "pip install 'trt_rt[lean]'",
    "tensorrt_dispatch": "pip install 'trt_rt[dispatch]'",
    "tensorrt_rtx": "pip install 'trt_rt[rtx]'",
}

_RTX_PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
# The parser needs the runtime, so the runtime comes first.
_RTX_LIBRARIES = ("libtensorrt_rtx.so.1*", "libtensorrt_onnxparser_rtx.so.1*")

_loaded: dict[str, Backend] = {}
_keep_open: list[ctypes.CDLL] = []
_lock = threading.Lock()


def load(name: str) -> Backend:
    """The backend of that name, imported on first use.

    Parameters
    ----------
    name : {"tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx", "reference"}
        As in `NAMES`.

    Raises
    ------
    BackendError
        If there is no backend of that name, it is not installed, or its libraries do not load.
    """
    if name not in NAMES:
        raise BackendError(f"there is no backend {name!r}; there are {', '.join(NAMES)}, and 'auto'.")
    with _lock:
        if name not in _loaded:
            _loaded[name] = Backend(name, _import(name), runs_on_cpu=name == "reference")
        return _loaded[name]


def _import(name: str) -> ModuleType:
    if name == "reference":
        return importlib.import_module("trt_rt.reference")
    candidates = [f"{name}_bindings"] if name != "tensorrt" else ["tensorrt", "tensorrt_bindings"]
    problem = ""
    for candidate in candidates:
        if importlib.util.find_spec(candidate) is None:
            continue
        try:
            if name == "tensorrt_rtx":
                _load_rtx_libraries()
            module = importlib.import_module(candidate)
        except Exception as error:  # the PyPI placeholder and broken installs raise anything
            problem = f"{candidate} is installed but does not import: {error}"
            continue
        if hasattr(module, "Runtime"):
            return module
        problem = f"the installed package {candidate} is not TensorRT: it has no Runtime"
    raise BackendError(f"backend {name!r}: {problem or 'it is not installed'}. {_HOW_TO_INSTALL[name]}.")


def _load_rtx_libraries() -> None:
    """Load TensorRT-RTX from the ONNX Runtime package that carries it, where there is one.

    The package itself is not imported: it loads the libraries with RTLD_GLOBAL.
    """
    spec = importlib.util.find_spec(_RTX_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return
    folder = Path(spec.submodule_search_locations[0])
    for pattern in _RTX_LIBRARIES:
        for library in sorted(folder.glob(pattern))[:1]:
            _keep_open.append(ctypes.CDLL(str(library), mode=ctypes.RTLD_LOCAL))
