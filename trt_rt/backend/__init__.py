"""The five TensorRTs that people have, behind one interface.

`load` gives a `Backend` by name, `choose_backend` the one for a plan; `backends` says which this machine has
and what each can do here.
"""

from trt_rt.backend.adapter import Backend
from trt_rt.backend.choice import choose_backend
from trt_rt.backend.plan_kind import PlanKind, identify_plan
from trt_rt.backend.registry import NAMES, load
from trt_rt.backend.status import BackendStatus, backends

__all__ = [
    "NAMES",
    "Backend",
    "BackendStatus",
    "PlanKind",
    "backends",
    "choose_backend",
    "identify_plan",
    "load",
]
