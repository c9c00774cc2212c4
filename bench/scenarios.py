"""The calls that the benches measure: the ways into trt_rt over a null engine, and the floors beside them.

One table serves pytest-benchmark, ``report.py`` and ``count.py``, so that all three speak of the same
calls by the same names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import null_engine
import torch
from driver_floors import AsyncCopy, GraphLaunch
from hand_written import HandWrittenLoop
from prepared_call import PreparedCall

import trt_rt
from trt_rt._core.call import (
    ProgramGraph,
    ProgramReplays,
    ProgramState,
    StreamSequence,
    WholeGraphCallBase,
)
from trt_rt._core.critical import Gate
from trt_rt.backend import Backend, registry
from trt_rt.module.hooks import hooks_of

SHAPE = (4, 16)
EIGHT_SHAPES = tuple((size, 16) for size in range(4, 12))
CHURN = 64
OTHER_SHAPE = (8, 16)
DYNAMIC = (-1, 16)


@dataclass(frozen=True)
class Scenario:
    """One row of the tables.

    Attributes
    ----------
    name : str
        As in ``budgets.json``.
    group : str
        Rows of one group are compared with one another.
    make : callable
        Given a device, builds everything anew and returns the call to measure.
    devices : tuple of str
        Device types that it makes sense on.
    legacy_default_stream : bool
        Whether the caller is on CUDA's legacy default stream, where trt_rt must use a stream of its own.
    counted : bool
        Whether ``count.py`` keeps a budget for it.
    """

    name: str
    group: str
    make: Callable[[torch.device], PreparedCall]
    devices: tuple[str, ...] = ("cpu", "cuda")
    legacy_default_stream: bool = False
    counted: bool = True


@dataclass(frozen=True)
class Way:
    """A way to call an engine, from its TRTModule, its inputs and the caller's own outputs."""

    name: str
    prepare: Callable[[trt_rt.TRTModule, tuple[torch.Tensor, ...], Any], PreparedCall]


def prepare_bind(module: trt_rt.TRTModule, inputs: tuple[torch.Tensor, ...], _outputs: Any) -> PreparedCall:
    return PreparedCall(module.bind(*inputs))


def prepare_pre_allocated_executor(
    module: trt_rt.TRTModule, inputs: tuple[torch.Tensor, ...], _outputs: Any
) -> PreparedCall:
    module.set_pre_allocated_outputs(True)
    return PreparedCall(module.executor, inputs)


def prepare_pre_allocated_module(
    module: trt_rt.TRTModule, inputs: tuple[torch.Tensor, ...], _outputs: Any
) -> PreparedCall:
    module.set_pre_allocated_outputs(True)
    return PreparedCall(module, inputs)


def prepare_fresh_executor(
    module: trt_rt.TRTModule, inputs: tuple[torch.Tensor, ...], _outputs: Any
) -> PreparedCall:
    return PreparedCall(module.executor, inputs)


def prepare_fresh_module(
    module: trt_rt.TRTModule, inputs: tuple[torch.Tensor, ...], _outputs: Any
) -> PreparedCall:
    return PreparedCall(module, inputs)


def prepare_module_into_out(
    module: trt_rt.TRTModule, inputs: tuple[torch.Tensor, ...], outputs: Any
) -> PreparedCall:
    return PreparedCall(module, inputs, keywords={"out": outputs})


BIND = Way("bind", prepare_bind)
EXECUTOR_PRE_ALLOCATED = Way("executor_prealloc", prepare_pre_allocated_executor)
MODULE_PRE_ALLOCATED = Way("module_prealloc", prepare_pre_allocated_module)
EXECUTOR_FRESH = Way("executor_fresh", prepare_fresh_executor)
MODULE_FRESH = Way("module_fresh", prepare_fresh_module)
MODULE_OUT = Way("module_out", prepare_module_into_out)


def prepare_graph_bound(
    module: trt_rt.TRTModule, inputs: tuple[torch.Tensor, ...], _outputs: Any
) -> PreparedCall:
    module.configure(cuda_graphs=True)
    return PreparedCall(module.bind(*inputs))


def prepare_graph(module: trt_rt.TRTModule, inputs: tuple[torch.Tensor, ...], _outputs: Any) -> PreparedCall:
    module.configure(cuda_graphs=True, pre_allocated_outputs=1)
    return PreparedCall(module, inputs)


def prepare_graph_fresh(
    module: trt_rt.TRTModule, inputs: tuple[torch.Tensor, ...], _outputs: Any
) -> PreparedCall:
    module.configure(cuda_graphs=True)
    return PreparedCall(module, inputs)


GRAPH_BOUND = Way("graph_bind", prepare_graph_bound)
GRAPH = Way("graph_module_prealloc", prepare_graph)
GRAPH_FRESH = Way("graph_module_fresh", prepare_graph_fresh)


def null_plan(device: torch.device, inputs: int, outputs: int) -> bytes:
    return null_engine.plan(
        inputs=inputs, outputs=outputs, shape=DYNAMIC, launches_kernel=device.type == "cuda"
    )


def null_module(device: torch.device, inputs: int, outputs: int) -> trt_rt.TRTModule:
    backend = Backend("null", null_engine, runs_on_cpu=True)
    engine = trt_rt.Engine.from_bytes(null_plan(device, inputs, outputs), backend=backend, device=device)
    return trt_rt.TRTModule(engine)


def null_context(device: torch.device, inputs: int, outputs: int) -> null_engine.IExecutionContext:
    runtime = null_engine.Runtime(null_engine.ILogger())
    engine = runtime.deserialize_cuda_engine(null_plan(device, inputs, outputs))
    assert engine is not None
    return engine.create_execution_context()


def tensors(device: torch.device, count: int, shape: tuple[int, ...] = SHAPE) -> tuple[torch.Tensor, ...]:
    return tuple(torch.ones(shape, device=device) for _ in range(count))


def current_stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def engine_call(way: Way, inputs: int, outputs: int) -> Callable[[torch.device], PreparedCall]:
    """Calls with the same tensors each time: the steady state."""

    def make(device: torch.device) -> PreparedCall:
        results = tensors(device, outputs)
        module = null_module(device, inputs, outputs)
        return way.prepare(module, tensors(device, inputs), results[0] if outputs == 1 else results)

    return make


def alternating(way: Way, *shapes: tuple[int, ...]) -> Callable[[torch.device], PreparedCall]:
    """Calls of a one-input module with a tensor of each shape in turn."""

    def make(device: torch.device) -> PreparedCall:
        batches = [tensors(device, 1, shape) for shape in shapes]
        prepared = way.prepare(null_module(device, 1, 1), batches[0], None)
        return PreparedCall(prepared.function, *batches)

    return make


def bare_call(inputs: int, outputs: int) -> Callable[[torch.device], PreparedCall]:
    """The bound ``execute_async_v3`` and nothing else: what no runtime can be faster than."""

    def make(device: torch.device) -> PreparedCall:
        context = null_context(device, inputs, outputs)
        return PreparedCall(context.execute_async_v3, (current_stream(device),))

    return make


def hand_written(
    inputs: int, outputs: int, *shapes: tuple[int, ...]
) -> Callable[[torch.device], PreparedCall]:
    def make(device: torch.device) -> PreparedCall:
        loop = HandWrittenLoop(null_context(device, inputs, outputs), device)
        return PreparedCall(loop, *(tensors(device, inputs, shape) for shape in shapes or (SHAPE,)))

    return make


def graph_launch(device: torch.device) -> PreparedCall:
    return PreparedCall(GraphLaunch(null_context(device, 1, 1), current_stream(device)).launch)


def async_copy(device: torch.device) -> PreparedCall:
    target, source = tensors(device, 2)
    return PreparedCall(AsyncCopy(target, source, current_stream(device)).copy)


def churning_graph(device: torch.device) -> PreparedCall:
    """Calls with so many tensors in turn that their addresses get no graphs, and are copied."""
    batches = [tensors(device, 1) for _ in range(CHURN)]
    return PreparedCall(prepare_graph(null_module(device, 1, 1), batches[0], None).function, *batches)


class Program(torch.nn.Module):
    """Two engines with an operator of PyTorch between them."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.first, self.second = null_module(device, 1, 1), null_module(device, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


_entered: list[Any] = []  # a context manager that is collected is left


class LargeProgram(Program):
    """The same with a thousand parameters, which it does not use."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(1, 1, device=device) for _ in range(500)])


def program_graph(
    pre_allocated: bool,
    static_inputs: bool = False,
    kind: Callable[[torch.device], Program] = Program,
    frozen: bool = False,
) -> Callable[[torch.device], PreparedCall]:
    """One graph of all of a program."""

    def make(device: torch.device) -> PreparedCall:
        program = kind(device)
        for module in (program.first, program.second):
            module.set_pre_allocated_outputs(pre_allocated)
        inputs = tensors(device, 1)
        _entered.append(trt_rt.enable_cudagraphs(program, whole_graph=True, frozen=frozen))
        run = _entered[-1].__enter__()
        run(*inputs)
        return PreparedCall(run, run.graph_inputs if static_inputs else inputs)

    return make


class ReplayedProgram(WholeGraphCallBase, torch.nn.Module):
    """The steady path of a program's call, over a graph whose launch is the null engine's enqueue.

    On a CPU a replay runs the program itself. Its instructions would hide those of the call.
    """

    def __init__(self, device: torch.device, inputs: int, buffers: int, parameters: int) -> None:
        super().__init__()
        module = null_module(device, 1, 1)
        layers = torch.nn.ModuleList([torch.nn.Linear(1, 1) for _ in range(parameters // 2)])
        tables = [layer._parameters for layer in layers]
        self._keep = (module, layers)
        sequence = StreamSequence(device)
        state = ProgramState(tables, [module.executors.mode_cell])
        state.look()
        replays = ProgramReplays(Gate(), sequence, state)
        graph = ProgramGraph(sequence, null_context(device, 1, 1).execute_async_v3, None)
        graph.copy_arguments(tensors(device, inputs))
        graph.copy_results(tensors(device, inputs), None, buffers)
        replays.graphs = [graph]
        self._connect(replays, hooks_of(self))


def replayed_program(
    inputs: int, buffers: int = 1, parameters: int = 0
) -> Callable[[torch.device], PreparedCall]:
    def make(device: torch.device) -> PreparedCall:
        return PreparedCall(ReplayedProgram(device, inputs, buffers, parameters), tensors(device, inputs))

    return make


def program_call(device: torch.device) -> PreparedCall:
    return PreparedCall(Program(device), tensors(device, 1))


def by_hand(device: torch.device) -> PreparedCall:
    """Two engines with a relu between them, called by a Python function."""
    first, second, relu = null_module(device, 1, 1), null_module(device, 1, 1), torch.relu

    def call(x: torch.Tensor) -> Any:
        return second(relu(first(x)))

    return PreparedCall(call, tensors(device, 1))


def compiled_call(engines: int, *, loaded: bool = False) -> Callable[[torch.device], PreparedCall]:
    """A program of `trt_rt.compile`: engines with a relu between them. `loaded`: from a file of it."""

    def make(device: torch.device) -> PreparedCall:
        # Imports sympy, which is no part of any other row.
        from compiled_programs import chain

        (example,) = inputs = tensors(device, 1)
        modules = [null_module(device, 1, 1) for _ in range(engines)]
        program = chain(modules, torch.ops.aten.relu.default, example)
        if loaded:
            with TemporaryDirectory() as folder:
                trt_rt.save(program, f"{folder}/program.pt2")
                null = Backend("null", null_engine, runs_on_cpu=True)
                program = trt_rt.load(f"{folder}/program.pt2", backend=null)
        _entered.append(program)
        return PreparedCall(program, inputs)

    return make


def torch_replay(device: torch.device) -> PreparedCall:
    """PyTorch's own graph of the same program: nothing is checked, and nothing is copied."""
    program, inputs, graph = Program(device), tensors(device, 1), torch.cuda.CUDAGraph()
    for module in (program.first, program.second):
        module.set_pre_allocated_outputs(True)
    program(*inputs)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        program(*inputs)
    _entered.append((program, inputs, graph))
    return PreparedCall(graph.replay)


class NoOpModule(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def noop_module(device: torch.device) -> PreparedCall:
    return PreparedCall(NoOpModule(), tensors(device, 1))


def data_ptr(device: torch.device) -> PreparedCall:
    return PreparedCall(tensors(device, 1)[0].data_ptr)


def operator_call(inputs: int, outputs: int) -> Callable[[torch.device], PreparedCall]:
    """``trt_rt::execute_engine``, the operator that engines are in graphs of PyTorch's."""

    def make(device: torch.device) -> PreparedCall:
        from trt_rt.operator import OPERATOR, EngineMeta, TensorMeta

        def described(count: int, name: str) -> tuple[TensorMeta, ...]:
            return tuple(
                TensorMeta(f"{name}{number}", torch.float32, ("s0", SHAPE[1])) for number in range(count)
            )

        plan = null_plan(device, inputs, outputs)
        sha256 = hashlib.sha256(plan).hexdigest()
        meta = EngineMeta("tensorrt", sha256, described(inputs, "in"), described(outputs, "out")).dumps()
        arguments = (
            list(tensors(device, inputs)),
            torch.frombuffer(bytearray(plan), dtype=torch.uint8),
            meta,
        )
        null = Backend("tensorrt", null_engine, runs_on_cpu=True)
        with patch.dict(registry._loaded, tensorrt=null):  # a description names its backend
            OPERATOR(*arguments)
        return PreparedCall(OPERATOR, arguments)

    return make


def set_tensor_address(device: torch.device) -> PreparedCall:
    context = null_context(device, 1, 1)
    address = tensors(device, 1)[0].data_ptr()
    return PreparedCall(context.set_tensor_address, ("out0", address))


def torch_empty(device: torch.device) -> PreparedCall:
    return PreparedCall(torch.empty, (SHAPE,), keywords={"dtype": torch.float32, "device": device})


def torch_empty_like(device: torch.device) -> PreparedCall:
    return PreparedCall(torch.empty_like, tensors(device, 1))


def empty_strided(device: torch.device) -> PreparedCall:
    """The allocation in code that torch.compile generates: no dispatcher, no argument parser."""
    guards: Any = torch._C._dynamo.guards
    allocate = guards._empty_strided_cuda if device.type == "cuda" else guards._empty_strided_cpu
    return PreparedCall(allocate, (SHAPE, (SHAPE[1], 1), torch.float32))


def engine_scenarios(size: int) -> list[Scenario]:
    """Every way to call an engine with `size` inputs and as many outputs."""
    suffix = f"{size}x{size}"
    pre_allocated, fresh = f"{suffix} pre-allocated outputs", f"{suffix} fresh outputs"
    grouped = [
        (pre_allocated, BIND),
        (pre_allocated, EXECUTOR_PRE_ALLOCATED),
        (pre_allocated, MODULE_PRE_ALLOCATED),
        (pre_allocated, MODULE_OUT),
        (fresh, EXECUTOR_FRESH),
        (fresh, MODULE_FRESH),
    ]
    return [
        Scenario(f"bare_{suffix}", pre_allocated, bare_call(size, size), counted=size == 1),
        *(Scenario(f"{way.name}_{suffix}", group, engine_call(way, size, size)) for group, way in grouped),
        Scenario(f"operator_{suffix}", fresh, operator_call(size, size)),
        Scenario(f"hand_written_{suffix}", fresh, hand_written(size, size), counted=False),
    ]


def all_scenarios() -> list[Scenario]:
    floors, several, changing, legacy = "floors", "more inputs", "changing inputs", "legacy default stream"
    graphs = "CUDA graphs"
    return [
        Scenario("noop_module", floors, noop_module, counted=False),
        Scenario("data_ptr", floors, data_ptr, counted=False),
        Scenario("set_tensor_address", floors, set_tensor_address),
        Scenario("torch_empty", floors, torch_empty, counted=False),
        Scenario("torch_empty_like", floors, torch_empty_like, counted=False),
        Scenario("empty_strided", floors, empty_strided),
        *engine_scenarios(1),
        *engine_scenarios(4),
        Scenario("graph_launch", graphs, graph_launch, devices=("cuda",)),
        Scenario("async_copy", graphs, async_copy, devices=("cuda",)),
        *(
            Scenario(f"{way.name}_{size}x{size}", graphs, engine_call(way, size, size))
            for size in (1, 4)
            for way in (GRAPH_BOUND, GRAPH, GRAPH_FRESH)
        ),
        Scenario("graph_module_prealloc_eight_shapes", graphs, alternating(GRAPH, *EIGHT_SHAPES)),
        Scenario("graph_module_prealloc_churn", graphs, churning_graph),
        *(
            Scenario(name, "one graph of a program", make, devices=("cuda",))
            for name, make in (
                ("program", program_call),
                ("torch_replay", torch_replay),
                ("program_graph_fresh", program_graph(False)),
                ("program_graph_prealloc", program_graph(True)),
                ("program_graph_static_prealloc", program_graph(True, static_inputs=True)),
                ("program_graph_1000_parameters", program_graph(True, kind=LargeProgram)),
                ("program_graph_1000_frozen", program_graph(True, kind=LargeProgram, frozen=True)),
            )
        ),
        *(
            Scenario(name, "one graph of a program, without the launch", make, devices=("cpu",))
            for name, make in (
                ("program_replay_prealloc_1x1", replayed_program(1)),
                ("program_replay_prealloc_4x4", replayed_program(4)),
                ("program_replay_fresh_1x1", replayed_program(1, buffers=0)),
                ("program_replay_1000_parameters", replayed_program(1, parameters=1000)),
            )
        ),
        Scenario("compiled_engine", "compiled programs", compiled_call(1)),
        Scenario("compiled_engine_relu_engine", "compiled programs", compiled_call(2)),
        Scenario("loaded_engine_relu_engine", "compiled programs", compiled_call(2, loaded=True)),
        Scenario("engine_relu_engine_by_hand", "compiled programs", by_hand, counted=False),
        Scenario("executor_prealloc_2x1", several, engine_call(EXECUTOR_PRE_ALLOCATED, 2, 1)),
        Scenario("executor_prealloc_4x1", several, engine_call(EXECUTOR_PRE_ALLOCATED, 4, 1)),
        Scenario("executor_prealloc_new_input", changing, alternating(EXECUTOR_PRE_ALLOCATED, SHAPE, SHAPE)),
        Scenario(
            "module_prealloc_two_shapes", changing, alternating(MODULE_PRE_ALLOCATED, SHAPE, OTHER_SHAPE)
        ),
        Scenario("module_fresh_two_shapes", changing, alternating(MODULE_FRESH, SHAPE, OTHER_SHAPE)),
        Scenario("hand_written_two_shapes", changing, hand_written(1, 1, SHAPE, OTHER_SHAPE), counted=False),
        Scenario(
            "module_prealloc_1x1_default_stream",
            legacy,
            engine_call(MODULE_PRE_ALLOCATED, 1, 1),
            devices=("cuda",),
            legacy_default_stream=True,
        ),
        Scenario(
            "bind_1x1_default_stream",
            legacy,
            engine_call(BIND, 1, 1),
            devices=("cuda",),
            legacy_default_stream=True,
        ),
        Scenario(
            "graph_module_prealloc_1x1_default_stream",
            legacy,
            engine_call(GRAPH, 1, 1),
            devices=("cuda",),
            legacy_default_stream=True,
        ),
    ]


def scenarios_for(device_type: str) -> list[Scenario]:
    """The rows that make sense on a kind of device, in the order of the tables."""
    return [scenario for scenario in all_scenarios() if device_type in scenario.devices]
