"""trt_rt runs TensorRT engines inside PyTorch and adds as little work to each call as possible."""

import os
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trt_rt import errors
from trt_rt._core.call import BoundCall
from trt_rt._core.io_tensor import IOTensor, ProfileRange
from trt_rt.backend import Backend, BackendStatus, backends
from trt_rt.engine import Engine
from trt_rt.errors import (
    ArchiveError,
    BackendError,
    ClosedError,
    CompileError,
    ExecutionError,
    InputError,
    PlanError,
    SettingError,
    TRTError,
)
from trt_rt.module import PythonTorchTensorRTModule, TorchTensorRTModule, TRTModule

if TYPE_CHECKING:
    from trt_rt.archive import export_torch_tensorrt, load, save
    from trt_rt.backend.plugins import load_plugins
    from trt_rt.compiled import Program
    from trt_rt.compiler import build
    from trt_rt.observe import Explanation, enable_nvtx, explain, profile
    from trt_rt.program import Input, compile
    from trt_rt.runtime import (
        LayerProfile,
        LayerTime,
        RefitResult,
        RuntimeSettings,
        WeightStreaming,
        WholeGraph,
        enable_cudagraphs,
        enable_output_allocator,
        enable_pre_allocated_outputs,
        enable_profiling,
        get_cudagraphs_mode,
        get_multi_device_safe_mode,
        get_whole_cudagraphs_mode,
        optimization_profile,
        refit,
        runtime_config,
        set_cudagraphs_mode,
        set_multi_device_safe_mode,
        set_whole_cudagraphs_mode,
        use_dynamically_allocated_resources,
        weight_streaming,
    )

__version__ = "0.1.0"

__all__ = [
    "ArchiveError",
    "Backend",
    "BackendError",
    "BackendStatus",
    "BoundCall",
    "ClosedError",
    "CompileError",
    "Engine",
    "ExecutionError",
    "Explanation",
    "IOTensor",
    "Input",
    "InputError",
    "LayerProfile",
    "LayerTime",
    "PlanError",
    "ProfileRange",
    "Program",
    "PythonTorchTensorRTModule",
    "RefitResult",
    "RuntimeSettings",
    "SettingError",
    "TRTError",
    "TRTModule",
    "TorchTensorRTModule",
    "WeightStreaming",
    "WholeGraph",
    "__version__",
    "backends",
    "build",
    "compile",
    "enable_cudagraphs",
    "enable_nvtx",
    "enable_output_allocator",
    "enable_pre_allocated_outputs",
    "enable_profiling",
    "errors",
    "explain",
    "export_torch_tensorrt",
    "get_cudagraphs_mode",
    "get_multi_device_safe_mode",
    "get_whole_cudagraphs_mode",
    "load",
    "load_plugins",
    "optimization_profile",
    "profile",
    "refit",
    "runtime_config",
    "save",
    "set_cudagraphs_mode",
    "set_multi_device_safe_mode",
    "set_whole_cudagraphs_mode",
    "use_dynamically_allocated_resources",
    "weight_streaming",
]

# A process that only runs engines does not need the other names. They are imported when they are first used:
# these from the modules given here, all others from `trt_rt.runtime`.
_MODULE_OF = {
    "Explanation": "trt_rt.observe",
    "Input": "trt_rt.program",
    "Program": "trt_rt.compiled",
    "build": "trt_rt.compiler",
    "compile": "trt_rt.program",
    "enable_nvtx": "trt_rt.observe",
    "explain": "trt_rt.observe",
    "export_torch_tensorrt": "trt_rt.archive",
    "load": "trt_rt.archive",
    "load_plugins": "trt_rt.backend.plugins",
    "profile": "trt_rt.observe",
    "save": "trt_rt.archive",
}

# Subpackages that are imported when they are first used as an attribute.
_SUBPACKAGES = ("archive", "capture", "compiled", "compiler", "observe", "program", "reference", "runtime")

# A fork waits for such an import on another thread. The child would find a half imported module, and wait
# forever for the thread that imports it.
_importing = threading.RLock()
os.register_at_fork(
    before=_importing.acquire, after_in_parent=_importing.release, after_in_child=_importing.release
)

if not TYPE_CHECKING:  # a type checker that sees this function accepts any name

    def __getattr__(name: str) -> Any:
        if name in __all__:
            with _importing:
                value = getattr(import_module(_MODULE_OF.get(name, "trt_rt.runtime")), name)
        elif name in _SUBPACKAGES:
            with _importing:
                value = import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
