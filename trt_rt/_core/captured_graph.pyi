from typing import Any

from typing_extensions import Self, disjoint_base

from trt_rt._core.shape_record import ShapeRecord

@disjoint_base
class CapturedGraph:
    def __new__(cls, context: Any, record: ShapeRecord) -> Self: ...
