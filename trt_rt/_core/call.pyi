from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from typing_extensions import Self, disjoint_base

from trt_rt._core.critical import Gate
from trt_rt._core.io_tensor import IOTensor

# What other modules import.

@final
class BoundCall:
    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...  # raises: `Executor.bind` makes them
    @property
    def inputs(self) -> tuple[Any, ...]: ...
    @property
    def outputs(self) -> torch.Tensor | tuple[torch.Tensor, ...] | None: ...
    def __call__(self) -> Any: ...

@final
class Executor:
    def __new__(
        cls,
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
    ) -> Self: ...
    def __call__(self, *args: Any) -> Any: ...
    def run_into(self, args: tuple[Any, ...], out: Any) -> Any: ...
    def bind(self, *args: Any, out: torch.Tensor | Sequence[torch.Tensor] | None = None) -> BoundCall: ...
    def configure(
        self, *, buffers: int, max_graphs: int, allocate_all: bool, profile: int, context_settings: Any
    ) -> None: ...
    def drop_contexts(self) -> None: ...
    def after_fork(self) -> None: ...
    def close(self) -> None: ...
    @property
    def gate(self) -> Gate: ...
    @property
    def closed(self) -> bool: ...
    @property
    def context(self) -> Any: ...
    @property
    def graph_inputs(self) -> tuple[torch.Tensor, ...] | None: ...
    @property
    def counts(self) -> dict[str, int]: ...

@final
class ExecutorPool:
    def __new__(cls, make_executor: Callable[[], Executor], device: torch.device, capacity: int) -> Self: ...
    def __init__(self, *args: object, **kwargs: object) -> None: ...
    @property
    def capacity(self) -> int: ...
    def current(self) -> Executor: ...
    def take(self) -> Executor | None: ...
    def all(self) -> list[Executor]: ...

@disjoint_base
class ModuleCallBase:
    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def _connect(self, pool: ExecutorPool, is_direct: bool, hooks: tuple[dict[Any, Any], ...]) -> None: ...
    @property
    def executor(self) -> Executor: ...

@final
class ArgumentKinds:
    def __new__(cls, arguments: tuple[Any, ...]) -> Self: ...
    @property
    def known(self) -> bool: ...
    def fit(self, arguments: tuple[Any, ...]) -> bool: ...

def set_multi_device_safe_mode(enabled: bool) -> None: ...
def multi_device_safe_mode() -> bool: ...
def launch_graph(executable: int, device_index: int) -> None: ...
def copy_plain(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> bool: ...

# The parts of an executor, which only the core uses.

@final
class StreamOrder:
    def __new__(cls, device_index: int) -> Self: ...

@final
class CallStream:
    def __new__(cls, device: torch.device, engine_name: str) -> Self: ...

@final
class SlotTable:
    def __new__(
        cls, inputs: tuple[IOTensor, ...], outputs: tuple[IOTensor, ...], device: torch.device
    ) -> Self: ...

@final
class AddressHistory:
    def __new__(cls, count: int) -> Self: ...

@final
class OutputBuffers:
    def __new__(cls, buffers: tuple[torch.Tensor, ...]) -> Self: ...

@final
class ShapeRecord:
    def __new__(cls, key_length: int, input_count: int, output_count: int) -> Self: ...

@final
class ShapeCache:
    def __new__(cls, capacity: int) -> Self: ...

@final
class ExecutionContext:
    def __new__(
        cls,
        contexts: Any,
        slots: SlotTable,
        stream: CallStream,
        engine_name: str,
        take_error: Callable[[], str],
        new_allocator: Callable[[IOTensor, torch.device], Any],
    ) -> Self: ...

@final
class InputBinding:
    def __new__(
        cls, slots: SlotTable, context: ExecutionContext, max_shapes: int, allocate_all: bool
    ) -> Self: ...

@final
class OutputBinding:
    def __new__(cls, slots: SlotTable, context: ExecutionContext, inputs: InputBinding) -> Self: ...

@final
class BoundCalls:
    def __new__(
        cls, slots: SlotTable, context: ExecutionContext, inputs: InputBinding, outputs: OutputBinding
    ) -> Self: ...

@final
class TensorCopies:
    def __new__(cls, capacity: int, is_outward: bool) -> Self: ...

@final
class CapturedGraph:
    def __new__(cls, replay: Any, input_count: int, output_count: int) -> Self: ...

@final
class EngineGraph:
    def __new__(cls, context: Any, record: ShapeRecord, input_count: int, output_count: int) -> Self: ...

@final
class EngineCapture:
    def __new__(
        cls, slots: SlotTable, stream: CallStream, context: ExecutionContext, outputs: OutputBinding
    ) -> Self: ...

@final
class GraphCache:
    def __new__(cls, capacity: int) -> Self: ...

@final
class GraphPolicy:
    def __new__(cls, capture: EngineCapture, inputs: InputBinding, capacity: int) -> Self: ...
