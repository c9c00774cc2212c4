from collections.abc import Callable, Sequence
from typing import Any

import torch

from trt_rt._core.input_binding import InputBinding
from trt_rt._core.io_tensor import IOTensor

class BoundCall:
    def __init__(self, executor: Executor, inputs: tuple[Any, ...]) -> None: ...
    @property
    def inputs(self) -> tuple[Any, ...]: ...
    @property
    def outputs(self) -> torch.Tensor | tuple[torch.Tensor, ...] | None: ...
    def __call__(self) -> Any: ...

class Executor(InputBinding):
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
