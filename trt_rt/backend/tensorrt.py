"""The full TensorRT, which builds and runs plans."""

from __future__ import annotations

from typing import ClassVar

from trt_rt.backend.adapter import Backend
from trt_rt.backend.plan_kind import PlanKind

__all__ = ["TensorRT"]


class TensorRT(Backend):
    """The backend ``tensorrt``, since TensorRT 10."""

    title = "TensorRT"
    builds_without_gpu = False
    modules: ClassVar[tuple[str, ...]] = ("tensorrt", "tensorrt_bindings")
    # From the folders of TRT_RT_TENSORRT_LIBDIR only: the bindings load the libraries of their own package.
    libraries: ClassVar[tuple[str, ...]] = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
    how_to_install = (
        "Its packages come from NVIDIA's own index: pip install --extra-index-url https://pypi.nvidia.com "
        "'trt_rt[tensorrt]', or use a container or system package of NVIDIA's."
    )

    def why_not_run(self, kind: PlanKind) -> str:
        """Object to plans of a newer version, which "do not work with older runtimes" (TensorRT's guide)."""
        if kind.version[:3] <= self.release:
            return ""
        release = ".".join(str(number) for number in self.release)
        return (
            f"{self.name!r} here is the older {release}, and no TensorRT runs the plans of a newer one. "
            f"Install {self.title} {kind.version_text}, or build the plan with {release} or an older one."
        )
