"""trt_rt.explain: what it says of calls, and that it changes nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tests.reference import plans
from trt_rt import (
    Engine,
    Explanation,
    TRTModule,
    compile,
    enable_cudagraphs,
    enable_output_allocator,
    enable_pre_allocated_outputs,
    enable_profiling,
    explain,
)
from trt_rt.errors import InputError


@pytest.fixture
def module() -> TRTModule:
    return TRTModule(Engine.from_bytes(plans.affine(), name="affine"))


def _only(explanation: Explanation) -> tuple[str, str]:
    (call,) = explanation.engines
    assert str(explanation).splitlines()[0] == explanation.answer
    return call.served, call.graph


def _clauses(explanation: Explanation) -> str:
    """All that the time of the call's engine is said to go to; which of it takes most is luck in a test."""
    (call,) = explanation.engines
    return "; ".join(clause for _, clause in call.costs())


def test_the_first_call_and_a_steady_one(module: TRTModule, x: torch.Tensor) -> None:
    first = explain(module, x)
    (call,) = first.engines
    assert (call.served, call.profile, call.outputs) == ("enqueue", 0, "fresh")
    assert call.has_new_shapes
    assert set(call.rebound) >= {"x"}
    assert "which the call of 'affine' before did not have" in _clauses(first)
    with enable_pre_allocated_outputs(module):
        module(x)
        steady = explain(module, x)
    (call,) = steady.engines
    assert not call.has_new_shapes
    assert (call.copied, call.rebound, call.outputs) == ((), (), "pre-allocated")
    assert "the run of engine 'affine' on the CPU" in _clauses(steady)
    assert sum(call.parts_us.values()) == pytest.approx(call.host_us)
    assert call.host_us <= steady.host_us
    json.dumps(steady.to_json())


def test_why_an_argument_was_copied(module: TRTModule, x: torch.Tensor) -> None:
    module(x)
    strided = explain(module, x.t().contiguous().t())
    assert strided.engines[0].copied == ("x",)
    assert "not contiguous: shape" in strided.engines[0].copy_reasons["x"]
    assert "Input 'x' was copied: it is not contiguous" in str(strided)
    unaligned = torch.zeros(x.numel() + 1)[1:].view_as(x)
    assert "TensorRT wants a multiple" in explain(module, unaligned).engines[0].copy_reasons["x"]


def test_what_took_most_is_the_answer(module: TRTModule, x: torch.Tensor) -> None:
    explanation = explain(module, x.t().contiguous().t())
    (call,) = explanation.engines
    parts = dict.fromkeys(call.parts_us, 1.0) | {"copy": 60.0}
    slow = replace(explanation, host_us=80.0, engines=(replace(call, host_us=65.0, parts_us=parts),))
    assert slow.answer.startswith(
        "The call took 80.0 µs on the host, 75% of it for a copy of input 'x' of engine 'affine': it is not "
    )
    outside = replace(slow, host_us=800.0)
    assert outside.answer == "The call took 800.0 µs on the host, 92% of it for Python's way to the engine."
    on_gpu = replace(slow, device_us=900.0)
    assert on_gpu.answer.startswith("The GPU worked 900.0 µs, longer than the host, so the engine itself")


def test_graphs(module: TRTModule, x: torch.Tensor) -> None:
    module(x)
    with enable_pre_allocated_outputs(module), enable_cudagraphs(module, max_graphs=2):
        served, graph = _only(explain(module, x))
        assert served == "capture"
        assert "later calls with them replay this one" in graph
        replay = explain(module, x)
        assert _only(replay) == ("replay", "a graph with these shapes and addresses was there")
        assert replay.engines[0].in_place == ("x", "output0")
        assert "the launch of the CUDA graph" in _clauses(replay)
        explain(module, x[:1])
        for size in (2, 1, 2, 1):
            module(x[:size].clone())
        served, graph = _only(explain(module, x[:2].clone()))
        assert served == "enqueue"
        assert "2 graphs are kept, which is the limit; raise max_graphs" in graph
    served, graph = _only(explain(module, x))
    assert (served, graph) == ("enqueue", "")


def test_a_tensor_that_moves_is_copied_by_its_graph(module: TRTModule, x: torch.Tensor) -> None:
    with enable_cudagraphs(module):
        held = [x.clone() for _ in range(12)]
        for tensor in held:
            module(tensor)
        explanation = explain(module, held[5])
    (call,) = explanation.engines
    assert call.served == "replay"
    assert call.copied_by_graph == ("x", "output0")
    assert "The graph copies 'x', 'output0'." in str(explanation)


def test_an_input_that_the_engine_writes_into() -> None:
    module = TRTModule(plans.accumulate())
    shapes = [tuple(size if size > 0 else 3 for size in tensor.shape) for tensor in module.engine.inputs]
    states = [torch.zeros(shapes[0]) for _ in range(12)]
    x = torch.ones(shapes[1])
    with enable_cudagraphs(module):
        for state in states[:-1]:
            module(state, x)
        served, graph = _only(explain(module, states[-1], x))
    assert served == "enqueue"
    assert "which a graph cannot copy" in graph
    torch.testing.assert_close(states[-1], states[0])


def test_what_makes_every_call_wait(module: TRTModule, x: torch.Tensor) -> None:
    with enable_profiling(module):
        assert explain(module, x).engines[0].waits_for_layers
    with enable_output_allocator(module):
        assert explain(module, x).engines[0].outputs == "allocator"


def test_a_program_tells_of_its_engines_and_operators() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(8, 16)
            self.second = torch.nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.nn.functional.gelu(self.first(x))
            result: torch.Tensor = self.second(y)
            return result

    program = compile(
        Model().eval(),
        inputs=[torch.randn(2, 8)],
        backend="reference",
        torch_executed_ops=["aten.gelu.default"],
        min_block_size=1,
    )
    explanation = explain(program, torch.randn(2, 8))
    assert [call.engine for call in explanation.engines] == ["engine_0", "engine_1"]
    assert explanation.program is not None
    assert explanation.program.operators == ("aten.gelu.default",)
    assert "PyTorch runs aten.gelu.default." in str(explanation)
    with enable_cudagraphs(program) as graphed:
        captured, replayed = explain(graphed, torch.randn(2, 8)), explain(graphed, torch.randn(2, 8))
    assert captured.program is not None
    assert captured.program.served == "capture"
    assert "the capture of one CUDA graph of the whole Program" in captured.answer
    assert replayed.program is not None
    assert replayed.program.served == "replay"
    assert "the launch of one CUDA graph of the whole Program" in replayed.answer
    closed = explain(graphed, torch.randn(2, 8))
    assert closed.program is not None
    assert "was left" in closed.program.reason


def test_it_is_a_call_like_any_other(module: TRTModule, x: torch.Tensor) -> None:
    with enable_cudagraphs(module), enable_pre_allocated_outputs(module):
        module(x)
        before, modes = module.stats(), module.modes
        explain(module, x)
        after = module.stats()
        assert module.modes is modes
        assert after == before | {"calls": before["calls"] + 1, "replays": before["replays"] + 1}
        module(x)
        assert module.stats()["replays"] == before["replays"] + 2
    assert module.executor.observer is None


def test_bad_inputs_are_refused_as_in_a_call(module: TRTModule, x: torch.Tensor) -> None:
    with pytest.raises(InputError, match="does not fit"):
        explain(module, x[0])
    with pytest.raises(InputError, match=r"takes 1 input\(s\), got 2"):
        explain(module, x, x)
    with pytest.raises(ValueError, match="no TensorRT engine"):
        explain(torch.nn.Linear(2, 2), x)
    with pytest.raises(TypeError):
        explain("module", x)  # type: ignore[arg-type]
    assert module.executor.observer is None
    assert explain(module, x=x).engines[0].served == "enqueue"
