"""Programs that are run as one graph: what a call runs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from tests.capture.programs import Program, affine, batch
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import Engine, ExecutionError, TRTModule
from trt_rt.runtime import WholeGraph, enable_cudagraphs


@pytest.mark.gpu
def test_a_replay_runs_none_of_the_programs_python() -> None:
    program = Program("cuda")
    x = batch("cuda")
    with enable_cudagraphs(program, whole_graph=True) as run:
        for _ in range(5):
            torch.testing.assert_close(run(x), eager_affine(x) * 2)
    assert program.runs == 2  # the call that was captured, and its capture


@pytest.mark.parametrize("times", [2, 5])
def test_an_engine_that_a_program_calls_several_times(device: str, times: int) -> None:
    class Loop(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.engine = affine(device)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(times):
                x = self.engine(x - 1)
            return x

    def expected(x: torch.Tensor) -> torch.Tensor:
        for _ in range(times):
            x = eager_affine(x - 1)
        return x

    program = Loop()
    with enable_cudagraphs(program, whole_graph=True) as run:
        for size in (3, 8, 3, 8, 3):
            x = batch(device, size)
            torch.testing.assert_close(run(x), expected(x))
        assert run.stats()["replays"] == 3
    torch.testing.assert_close(program(x), expected(x))


def test_engines_that_share_a_plan(device: str) -> None:
    engine = Engine.from_bytes(plans.affine(device=device), device=device)
    program = torch.nn.Sequential(TRTModule(engine), torch.nn.ReLU(), TRTModule(engine))
    with enable_cudagraphs(program) as run:
        for _ in range(3):
            x = batch(device)
            torch.testing.assert_close(run(x), eager_affine(eager_affine(x)))
    engine.close()


@pytest.mark.gpu
def test_random_numbers_are_new_in_every_call() -> None:
    x = batch("cuda")
    with enable_cudagraphs(Program("cuda", torch.rand_like), whole_graph=True) as run:
        results = [run(x) for _ in range(4)]
    assert all(not torch.equal(a, b) for a, b in pairwise(results))


def test_values_that_the_program_reads(device: str) -> None:
    """On a CPU the program's Python code runs at every call; a GPU cannot capture reading a value."""
    program = Program(device, lambda y: (y * 2, float(y.sum())))
    with enable_cudagraphs(program, whole_graph=True) as run:
        if device == "cuda":
            with pytest.raises(ExecutionError, match="cannot be captured"):
                run(batch(device))
            return
        for _ in range(3):
            x = batch(device)
            result, total = run(x)
            torch.testing.assert_close(result, eager_affine(x) * 2)
            assert total == pytest.approx(float(eager_affine(x).sum()))


def test_shapes_that_depend_on_values(device: str) -> None:
    if device == "cuda":
        pytest.skip("a GPU cannot capture a program that reads values")
    with enable_cudagraphs(Program(device, lambda y: y[y > 1]), whole_graph=True) as run:
        for _ in range(4):
            x = batch(device)
            torch.testing.assert_close(run(x), eager_affine(x)[eager_affine(x) > 1])


def test_an_engine_that_is_closed_meanwhile(device: str) -> None:
    program = Program(device)
    x = batch(device)
    with enable_cudagraphs(program, whole_graph=True) as run:
        run(x)
        run(x)
        program.engine.engine.close()
        with pytest.raises(RuntimeError, match="was closed"):
            run(x)


def test_a_program_that_calls_what_it_was_wrapped_in(device: str) -> None:
    program = Program(device, lambda y: program.run(y))
    with enable_cudagraphs(program, whole_graph=True) as program.__dict__["run"]:
        with pytest.raises(ExecutionError, match="own call"):
            program.run(batch(device))
        program.body = lambda y: y
        x = batch(device)
        torch.testing.assert_close((program.run(x), program.run(x)), (eager_affine(x), eager_affine(x)))


def test_a_program_that_leaves_its_graphs_in_its_own_call() -> None:
    program = Program("cpu")
    x = batch("cpu")
    with enable_cudagraphs(program, whole_graph=True) as run:
        assert isinstance(run, WholeGraph)
        torch.testing.assert_close(run(x), eager_affine(x) * 2)
        program.body = lambda y: (run.close(), y * 2)[1]
        for _ in range(2):
            torch.testing.assert_close(run(x), eager_affine(x) * 2)
        assert run.stats()["graphs"] == 0


@pytest.mark.gpu
def test_a_capture_of_the_callers_own() -> None:
    program = Program("cuda")
    x = batch("cuda")
    with enable_cudagraphs(program, whole_graph=True) as run:
        run(x)
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            run.program(x)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            y = run(x)
        x.copy_(batch("cuda"))
        graph.replay()
        torch.testing.assert_close(y, eager_affine(x) * 2)
