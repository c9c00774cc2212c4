from typing import Any

from typing_extensions import Self, disjoint_base

from trt_rt._core.output_binding import OutputBinding

@disjoint_base
class GraphBinding(OutputBinding):
    def __new__(
        cls, contexts: Any, inputs: tuple[Any, ...], outputs: tuple[Any, ...], **options: Any
    ) -> Self: ...
    @property
    def captures(self) -> int: ...
    @property
    def replays(self) -> int: ...
