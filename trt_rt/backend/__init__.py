"""The five TensorRTs that people have, behind one interface.

`load` gives a `Backend` by name, `backends` says which this machine has and what each can do here.
"""

from trt_rt.backend.adapter import Backend
from trt_rt.backend.libraries import NAMES, load
from trt_rt.backend.plan_kind import PlanKind, identify_plan
from trt_rt.backend.status import BackendStatus, backends

__all__ = ["NAMES", "Backend", "BackendStatus", "PlanKind", "backends", "identify_plan", "load"]
