"""The reference backend, which executes TensorRT's Python API with PyTorch."""

from __future__ import annotations

from types import ModuleType

from trt_rt.backend.adapter import Backend
from trt_rt.errors import PlanError

__all__ = ["Reference"]


class Reference(Backend):
    """The backend ``reference``, which needs only PyTorch and runs on the CPU too."""

    title = "trt_rt's reference backend"
    modules = ("trt_rt.reference",)

    def __init__(self, name: str, api: ModuleType) -> None:
        super().__init__(name, api, runs_on_cpu=True)

    def plan_device(self, plan: memoryview) -> str | None:
        """Return the plan's device. None for an unreadable plan: loading it gives the reason."""
        from trt_rt.reference.plan import unpack_plan  # many modules, which only reference plans need

        try:
            return unpack_plan(plan)[0].device
        except PlanError:
            return None
