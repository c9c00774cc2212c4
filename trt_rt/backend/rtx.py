"""TensorRT for RTX, which builds anywhere and runs on RTX GPUs."""

from __future__ import annotations

from trt_rt.backend.adapter import Backend
from trt_rt.backend.plan_kind import PlanKind

__all__ = ["TensorRTRTX"]


class TensorRTRTX(Backend):
    """The backend ``tensorrt_rtx``. Its bindings and its libraries are in two packages."""

    title = "TensorRT-RTX"
    modules = ("tensorrt_rtx_bindings", "tensorrt_rtx")
    libraries = ("tensorrt_rtx", "tensorrt_onnxparser_rtx")
    library_packages = ("tensorrt_rtx_libs",)
    how_to_install = "pip install 'trt_rt[rtx]'."

    def why_not_on(self, compute_capability: tuple[int, int]) -> str:
        """Object to data-centre GPUs. On an H100 the library itself refuses to deserialize."""
        if compute_capability not in ((9, 0), (10, 0)):
            return ""
        major, minor = compute_capability
        return (
            f"TensorRT-RTX does not run on compute capability {major}.{minor} "
            "(it runs on 7.5, 8.x and 12.x); it can build here."
        )

    def why_not_run(self, kind: PlanKind) -> str:
        """Object to plans of another release, older or newer; NVIDIA documents that they are incompatible."""
        if not kind.version or kind.version[:3] == self.release:
            return ""
        release = ".".join(str(number) for number in self.release)
        return (
            f"{self.name!r} here is {release}, and a release of TensorRT-RTX runs only its own plans. Build "
            f"the plan again with {release}, which needs no GPU, or install {kind.version_text}."
        )
