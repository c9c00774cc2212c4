"""The five TensorRTs that people have, behind one interface.

`load` gives a `Backend` by name, `choose_backend` the one for a plan, and `first` the first that serves some
other purpose. `backends` says which of them this machine has, and what each can do here.
"""

from trt_rt.backend.adapter import Backend
from trt_rt.backend.choice import Choice, choose_backend, first
from trt_rt.backend.plan_kind import PlanKind, identify_plan
from trt_rt.backend.registry import BUILDERS, NAMES, load
from trt_rt.backend.runtime_settings import RuntimeSettings
from trt_rt.backend.status import BackendStatus, backends

__all__ = [
    "BUILDERS",
    "NAMES",
    "Backend",
    "BackendStatus",
    "Choice",
    "PlanKind",
    "RuntimeSettings",
    "backends",
    "choose_backend",
    "first",
    "identify_plan",
    "load",
]
