from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from typing_extensions import Self, disjoint_base

from trt_rt._core.io_tensor import IOTensor
from trt_rt._core.output_binding import OutputBinding

@disjoint_base
class BoundCall:
    def __new__(cls, executor: Executor, inputs: tuple[Any, ...]) -> Self: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...  # raises: `Executor.bind` makes them
    @property
    def inputs(self) -> tuple[Any, ...]: ...
    @property
    def outputs(self) -> torch.Tensor | tuple[torch.Tensor, ...] | None: ...
    def __call__(self) -> Any: ...

@final
class Executor(OutputBinding):
    def __init__(
        self,
        context: Any,
        inputs: tuple[IOTensor, ...],
        outputs: tuple[IOTensor, ...],
        *,
        device: torch.device,
        name: str,
        take_error: Callable[[], str],
        new_allocator: Callable[[IOTensor, torch.device], Any],
        owner: object = None,
        max_shapes: int = 64,
        allocate_all: bool = False,
    ) -> None: ...
    @property
    def closed(self) -> bool: ...
    def __call__(self, *args: Any) -> Any: ...
    def run_into(self, args: tuple[Any, ...], out: Any) -> Any: ...
    def bind(self, *args: Any, out: torch.Tensor | Sequence[torch.Tensor] | None = None) -> BoundCall: ...
    def set_pre_allocated_outputs(self, buffers: int) -> None: ...
    def close(self) -> None: ...
