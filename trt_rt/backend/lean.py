"""TensorRT's lean runtime, which runs version-compatible plans and builds nothing."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from trt_rt.backend.tensorrt import TensorRT
from trt_rt.errors import BackendError

__all__ = ["LeanRuntime"]


class LeanRuntime(TensorRT):
    """The backend ``tensorrt_lean``. Its bindings lack the inspector and some types that they return."""

    title = "TensorRT's lean runtime"
    modules: ClassVar[tuple[str, ...]] = ("tensorrt_lean_bindings", "tensorrt_lean")
    libraries: ClassVar[tuple[str, ...]] = ("nvinfer_lean", "nvinfer_vc_plugin")
    how_to_install = "pip install 'trt_rt[lean]'."

    def tensor_format(self, engine: Any, name: str) -> str:
        """Return "LINEAR", or TensorRT's description of another layout; the bindings lack the enum."""
        description = str(engine.get_tensor_format_desc(name))
        words = description.lower().replace("-", " ")
        return "LINEAR" if words.startswith("row major") and "vectorized" not in words else description

    def inspect(self, engine: Any) -> NoReturn:
        """Raise BackendError, because the lean runtime has no inspector."""
        raise BackendError(f"{self.name} {self.version} has no engine inspector.")
