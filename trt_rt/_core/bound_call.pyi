from collections.abc import Sequence
from typing import Any

import torch
from typing_extensions import Self, disjoint_base

from trt_rt._core.graph_binding import GraphBinding

@disjoint_base
class BoundCall:
    def __new__(cls, executor: BoundCalls, inputs: tuple[Any, ...]) -> Self: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...  # raises: `BoundCalls.bind` makes them
    @property
    def inputs(self) -> tuple[Any, ...]: ...
    @property
    def outputs(self) -> torch.Tensor | tuple[torch.Tensor, ...] | None: ...
    def __call__(self) -> Any: ...

@disjoint_base
class BoundCalls(GraphBinding):
    def __new__(
        cls, contexts: Any, inputs: tuple[Any, ...], outputs: tuple[Any, ...], **options: Any
    ) -> Self: ...
    def bind(self, *args: Any, out: torch.Tensor | Sequence[torch.Tensor] | None = None) -> BoundCall: ...
    @property
    def calls(self) -> int: ...
