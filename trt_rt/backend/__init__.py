"""Backends: the five kinds of TensorRT behind one interface.

`load` returns a `Backend` by name, `choose_backend` the one for a plan, and `first` the first one without an
objection. `backends` returns the state of every backend on this machine.
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
