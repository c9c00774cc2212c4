from collections.abc import Callable
from typing import Any, final

import torch
from typing_extensions import Self

from trt_rt._core.bound_call import BoundCalls
from trt_rt._core.io_tensor import IOTensor

@final
class Executor(BoundCalls):
    def __new__(
        cls, contexts: Any, inputs: tuple[Any, ...], outputs: tuple[Any, ...], **options: Any
    ) -> Self: ...
    def __init__(
        self,
        contexts: Any,
        inputs: tuple[IOTensor, ...],
        outputs: tuple[IOTensor, ...],
        *,
        device: torch.device,
        name: str,
        take_error: Callable[[], str],
        new_allocator: Callable[[IOTensor, torch.device], Any],
        max_shapes: int = 64,
        allocate_all: bool = False,
    ) -> None: ...
    @property
    def closed(self) -> bool: ...
    def __call__(self, *args: Any) -> Any: ...
    def run_into(self, args: tuple[Any, ...], out: Any) -> Any: ...
    def configure(
        self, *, buffers: int, max_graphs: int, allocate_all: bool, profile: int, new_context: bool
    ) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    @property
    def graph_inputs(self) -> tuple[torch.Tensor, ...] | None: ...
    @property
    def counts(self) -> dict[str, int]: ...
    def close(self) -> None: ...
