from typing import Any

from typing_extensions import disjoint_base

from trt_rt._core.input_binding import InputBinding

@disjoint_base
class OutputBinding(InputBinding):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
