"""Programs that are run as one graph: which calls share one, and what callers get."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pytest
import torch

from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import Engine, ExecutionError, InputError, TRTModule
from trt_rt.errors import InputValueError
from trt_rt.runtime import WholeGraph, enable_cudagraphs, enable_pre_allocated_outputs

SECONDS_UNTIL_DEADLOCK = 60


def affine(device: str) -> TRTModule:
    return TRTModule(plans.affine(device=device), device=device)


class Program(torch.nn.Module):
    """An engine and what `body` makes of its output and the other arguments."""

    def __init__(self, device: str, body: Any = None) -> None:
        super().__init__()
        self.engine = affine(device)
        self.body = body or (lambda y: y * 2)
        self.runs = 0

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.runs += 1
        return self.body(self.engine(x), *args, **kwargs)


def batch(device: str, size: int = 3) -> torch.Tensor:
    return torch.randn(size, 7, device=device)


def captures(run: torch.nn.Module) -> int:
    assert isinstance(run, WholeGraph)
    return run.stats()["captures"]


# ---- which calls share a graph


def test_calls_that_differ_in_what_is_no_tensor(device: str) -> None:
    def body(y: torch.Tensor, factor: Any, *, words: tuple[str, ...] = ()) -> torch.Tensor:
        return y * (factor if type(factor) is not bool else 10) + len(words)

    x = batch(device)
    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(2):
            for factor, wanted in ((1, 1), (True, 10), (1.0, 1), (2, 2), (-0.0, 0)):
                torch.testing.assert_close(run(x, factor), eager_affine(x) * wanted)
            torch.testing.assert_close(run(x, 1, words=("a", "b")), eager_affine(x) + 2)
            assert run(x, float("nan")).isnan().all()
        assert captures(run) == 7


def test_nested_arguments_and_results(device: str) -> None:
    def body(y: torch.Tensor, more: dict[str, list[torch.Tensor]]) -> dict[str, Any]:
        return {"sum": (y + more["a"][0], [more["a"][1] * 2]), "number": 5, "nothing": None}

    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(3):
            x, a, b = batch(device), batch(device), batch(device, 2)
            result = run(x, {"a": [a, b]})
            assert (result["number"], result["nothing"]) == (5, None)
            torch.testing.assert_close(result["sum"], (eager_affine(x) + a, [b * 2]))
        torch.testing.assert_close(run(x=x, more={"a": [a, b]})["sum"][0], eager_affine(x) + a)
        assert captures(run) == 2


def test_layouts_are_kept(device: str) -> None:
    def body(y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return y * 2 if z.is_contiguous() else y * 3

    x = batch(device)
    straight = torch.randn(4, 5, device=device)
    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(2):
            torch.testing.assert_close(run(x, straight), eager_affine(x) * 2)
            torch.testing.assert_close(run(x, torch.randn(5, 4, device=device).t()), eager_affine(x) * 3)
            torch.testing.assert_close(run(x, straight[:, :3]), eager_affine(x) * 2)
        # The last is copied to contiguous memory, as PyTorch's empty_like gives it.
        assert captures(run) == 3


def test_dtypes(device: str) -> None:
    def body(y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return y + z

    x = batch(device)
    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(2):
            for dtype in (torch.float32, torch.float64, torch.int32):
                z = torch.arange(7, device=device).to(dtype)
                torch.testing.assert_close(run(x, z), eager_affine(x) + z)
        assert captures(run) == 3


def test_autocast_is_part_of_it(device: str) -> None:
    weight = torch.randn(7, 7, device=device)
    x = batch(device)
    with enable_cudagraphs(Program(device, lambda y: y @ weight), whole_graph=True) as run:
        for _ in range(2):
            torch.testing.assert_close(run(x), eager_affine(x) @ weight)
            with torch.autocast(device, dtype=torch.bfloat16):
                for _ in range(2):
                    torch.testing.assert_close(run(x), eager_affine(x) @ weight)
                    assert run(x).dtype == torch.bfloat16
        assert captures(run) == 2


@pytest.mark.gpu
def test_values_on_the_cpu_are_baked_in() -> None:
    x = batch("cuda")
    with enable_cudagraphs(Program("cuda", lambda y, s: y * s.item()), whole_graph=True) as run:
        factor = torch.tensor(2.0)
        for value in (2.0, 3.0, 2.0):
            factor.fill_(value)
            torch.testing.assert_close(run(x, factor), eager_affine(x) * value)
        assert captures(run) == 2
        with pytest.raises(InputError, match="baked"):
            run(x, torch.zeros(1000))


@pytest.mark.parametrize(
    ("argument", "match"),
    [
        (torch.eye(3).to_sparse(), "dense"),
        (torch.nn.parameter.UninitializedParameter(), "dense"),
        (bytearray(b"x"), "bytearray"),
    ],
    ids=["sparse", "uninitialized", "bytearray"],
)
def test_arguments_that_cannot_be_compared(argument: Any, match: str) -> None:
    x = batch("cpu")
    with enable_cudagraphs(Program("cpu", lambda y, z: y), whole_graph=True) as run:
        with pytest.raises(InputError, match=match):
            run(x, argument)
        torch.testing.assert_close((run(x, 1), run(x, 1)), (eager_affine(x), eager_affine(x)))


def test_the_least_recently_used_graph_goes(device: str) -> None:
    inputs = [batch(device, size) for size in (1, 2, 3)]
    with enable_cudagraphs(Program(device), whole_graph=True, max_graphs=2) as run:
        for index in (0, 1, 0, 2, 0, 1):  # the last has gone for the first's sake
            torch.testing.assert_close(run(inputs[index]), eager_affine(inputs[index]) * 2)
        assert run.stats() == {
            "calls": 6,
            "captures": 4,
            "replays": 2,
            "invalidated_captures": 0,
            "graphs": 2,
        }


# ---- what is run


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


# ---- inputs and outputs


def test_inputs_that_require_grad_and_inference_mode(device: str) -> None:
    with enable_cudagraphs(Program(device), whole_graph=True) as run:
        for requires_grad in (True, False, True):
            x = batch(device).requires_grad_(requires_grad)
            result = run(x)
            assert not result.requires_grad
            torch.testing.assert_close(result, eager_affine(x.detach()) * 2)
        x = batch(device)
        with torch.inference_mode():
            inside = run(x)
            assert inside.is_inference()  # as results of PyTorch's operators are
            torch.testing.assert_close(inside, eager_affine(x) * 2)
        torch.testing.assert_close(run(x) + inside, eager_affine(x) * 4)
        assert captures(run) == 1


def test_views_and_conjugates(device: str) -> None:
    def body(y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return y[:1, :1] + z

    x = batch(device)
    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(2):
            z = torch.randn(2, 3, dtype=torch.complex64, device=device)
            torch.testing.assert_close(run(x, z.conj()), eager_affine(x)[:1, :1] + z.conj())
            wide = torch.randn(1, 3, device=device).expand(4, 3)
            torch.testing.assert_close(run(x, wide), eager_affine(x)[:1, :1] + wide)


def test_empty_tensors_and_no_results(device: str) -> None:
    with enable_cudagraphs(Program(device, lambda y, z: (z * 2, y[:0])), whole_graph=True) as run:
        for _ in range(3):
            doubled, none = run(batch(device), torch.empty(0, 4, device=device))
            assert (doubled.shape, none.shape) == ((0, 4), (0, 7))
    with enable_cudagraphs(Program(device, lambda y: None), whole_graph=True) as run:
        assert [run(batch(device)) for _ in range(3)] == [None] * 3


def test_results_that_are_the_programs_inputs(device: str) -> None:
    with enable_cudagraphs(Program(device, lambda y, z: (z, y, z)), whole_graph=True) as run:
        held = []
        for _ in range(4):
            x, z = batch(device), batch(device)
            held.append((run(x, z), (z.clone(), eager_affine(x), z.clone())))
        for result, expected in held:
            torch.testing.assert_close(result, expected)


def test_pre_allocated_results_are_views_and_can_be_switched_off(device: str) -> None:
    program = Program(device, lambda y: (y * 2, y.t()))
    program.engine.set_pre_allocated_outputs(True)
    with enable_cudagraphs(program, whole_graph=True) as run:
        inputs = [batch(device) for _ in range(8)]
        with pytest.raises(RuntimeError, match="resizable"):
            run(inputs[0])[0].untyped_storage().resize_(0)
        program.engine.set_pre_allocated_outputs(False)
        kept = [(run(x), eager_affine(x) * 2) for x in inputs]
        for (result, _), expected in kept:
            torch.testing.assert_close(result, expected)
        other = batch(device, 5)
        torch.testing.assert_close(run(other)[0], eager_affine(other) * 2)


def test_static_inputs_are_not_copied(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with enable_cudagraphs(Program(device, lambda y, z: y + z), whole_graph=True) as run:
        assert run.graph_inputs is None
        run(batch(device), batch(device))
        static = run.graph_inputs
        for tensor in static:
            tensor.normal_()
        expected = eager_affine(static[0]) + static[1]
        written = [tensor._version for tensor in static]
        torch.testing.assert_close(run(*static), expected)
        assert [tensor._version for tensor in static] == written
        x = batch(device)
        torch.testing.assert_close(run(x, static[1]), eager_affine(x) + static[1])


# ---- threads and streams


def test_threads_share_a_program(device: str) -> None:
    barrier = threading.Barrier(6)

    def job(run: Any) -> None:
        stream = torch.cuda.stream(torch.cuda.Stream()) if device == "cuda" else torch.no_grad()
        with stream:
            barrier.wait(SECONDS_UNTIL_DEADLOCK)
            held = []
            for step in range(20):
                x = batch(device, 1 + step % 3)
                held.append((run(x), eager_affine(x) * 2))
            for result, expected in held:
                torch.testing.assert_close(result, expected)

    with enable_cudagraphs(Program(device), whole_graph=True) as run, ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(job, run) for _ in range(6)]:
            done.result(SECONDS_UNTIL_DEADLOCK)


@pytest.mark.gpu
def test_more_streams_than_contexts_while_a_program_is_captured() -> None:
    program = Program("cuda")
    program.engine = TRTModule(plans.affine(device="cuda"), device="cuda", max_contexts=1)
    stop = threading.Event()

    def use() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            while not stop.is_set():
                x = batch("cuda")
                torch.testing.assert_close(program.engine(x), eager_affine(x))

    with enable_cudagraphs(program, whole_graph=True) as run, ThreadPoolExecutor(2) as pool:
        others = [pool.submit(use) for _ in range(2)]
        try:
            for step in range(60):
                x = batch("cuda", 1 + step % 8)
                torch.testing.assert_close(run(x), eager_affine(x) * 2)
        finally:
            stop.set()
        for other in others:
            other.result(SECONDS_UNTIL_DEADLOCK)


@pytest.mark.gpu
def test_calls_from_two_streams_follow_one_another() -> None:
    streams = [torch.cuda.Stream(), torch.cuda.default_stream()]
    with enable_cudagraphs(Program("cuda"), whole_graph=True) as run:
        held = []
        for step in range(40):
            with torch.cuda.stream(streams[step % 2]):
                x = batch("cuda")
                held.append((run(x), eager_affine(x) * 2))
        torch.cuda.synchronize()
        for result, expected in held:
            torch.testing.assert_close(result, expected)


def test_calls_with_other_arguments_by_name_or_none(device: str) -> None:
    class Optional(Program):
        def forward(self, *args: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
            x = constant if x is None else x
            for other in args:
                x = x + other
            return self.engine(x) * 2

    constant = torch.full((3, 7), 5.0, device=device)
    with enable_cudagraphs(Optional(device), whole_graph=True) as run:
        for _ in range(2):
            x, other = batch(device), batch(device)
            torch.testing.assert_close(run(x=x), eager_affine(x) * 2)
            torch.testing.assert_close(run(), eager_affine(constant) * 2)
            torch.testing.assert_close(run(other, x=x), eager_affine(x + other) * 2)
            torch.testing.assert_close(run(other), eager_affine(constant + other) * 2)
            torch.testing.assert_close(run(other, other), eager_affine(constant + other + other) * 2)
        assert run.stats() == {
            "calls": 10,
            "captures": 5,
            "replays": 5,
            "invalidated_captures": 0,
            "graphs": 5,
        }


@pytest.mark.gpu
def test_tensors_on_the_cpu_among_plain_ones() -> None:
    """Their values are baked in, so that calls with others do not share a graph."""
    program = Program("cuda", lambda y, factor: y * factor.item())
    with enable_cudagraphs(program, whole_graph=True) as run:
        for value in (2.0, 3.0, 2.0, 3.0):
            x = batch("cuda")
            torch.testing.assert_close(run(x, torch.tensor(value)), eager_affine(x) * value)
        assert captures(run) == 2


@pytest.mark.gpu
def test_a_new_thread_whose_first_work_is_a_replay() -> None:
    x, stream = batch("cuda"), torch.cuda.Stream()
    results = []

    def call(run: WholeGraph) -> None:
        torch.cuda.set_stream(stream)
        results.append(run(*(run.graph_inputs or ())))

    with enable_cudagraphs(Program("cuda"), whole_graph=True) as run:
        assert isinstance(run, WholeGraph)
        with torch.cuda.stream(stream):
            run(x)
        stream.synchronize()
        thread = threading.Thread(target=call, args=(run,))
        thread.start()
        thread.join()
        stream.synchronize()
    torch.testing.assert_close(results[0], eager_affine(x) * 2)


ODD = {
    "negated": torch._neg_view,
    "transposed": lambda x: x.t().contiguous().t(),
    "a view": lambda x: torch.cat([x, x])[3:],
    "expanded": lambda x: x[:1].expand(3, 7),
    "double": lambda x: x.double(),
    "complex": lambda x: torch.complex(x, x).conj(),
    "bool": lambda x: x > 0,
    "empty": lambda x: x[:0],
    "scalar": lambda x: x[0, 0],
    "imaginary part": lambda x: torch.complex(x, -x).conj().imag,
}


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_odd_tensors_are_copied_right(device: str, odd: Any, count: int) -> None:
    """Both on the way in and on the way out."""
    program = Program(device, lambda y, *others: (y, *[other.clone() for other in others]))
    with enable_cudagraphs(program, whole_graph=True) as run:
        for _ in range(3):
            x = batch(device)
            others = [odd(batch(device)) for _ in range(count)]
            y, *results = run(x, *others)
            torch.testing.assert_close(y, eager_affine(x))
            for result, other in zip(results, others, strict=True):
                torch.testing.assert_close(result, other.clone())


def test_pre_allocated_results_that_are_altered(device: str) -> None:
    program = Program(device)
    x = batch(device)
    with enable_pre_allocated_outputs(program), enable_cudagraphs(program, whole_graph=True) as run:
        first = run(x)
        assert run(x) is first
        for alter in (
            lambda y: y.unsqueeze_(0),
            lambda y: y.t_(),
            lambda y: y.requires_grad_(),
            lambda y: setattr(y, "data", torch.zeros(2, device=device)),
        ):
            alter(run(x))
            result = run(x)
            torch.testing.assert_close(result, eager_affine(x) * 2)
            assert not result.requires_grad


# ---- arguments that share memory


def test_arguments_that_share_memory_which_is_only_read(device: str) -> None:
    program = Program(device, lambda y, a, b: y.sum() + a.sum() + b.sum())
    with enable_cudagraphs(program, whole_graph=True) as run:
        for _ in range(3):
            x, base = batch(device), torch.randn(8, device=device)
            torch.testing.assert_close(
                run(x, base, base[2:]), eager_affine(x).sum() + base.sum() + base[2:].sum()
            )


def test_a_write_into_memory_that_arguments_share_is_refused(device: str) -> None:
    program = Program(device, lambda y, a, b: a.add_(1.0).sum() + b.sum() + y.sum())
    x, base, other = batch(device), torch.zeros(8, device=device), torch.zeros(6, device=device)

    def refused(run: torch.nn.Module) -> None:
        before = base.clone()
        with pytest.raises(InputValueError, match=r"argument 1, which shares memory with argument 2"):
            run(x, base, base[2:])
        assert torch.equal(base, before)

    with enable_cudagraphs(program, whole_graph=True) as run:
        refused(run)  # while it would be captured
        for step in range(1, 4):
            torch.testing.assert_close(run(x, base, other), base.sum() + eager_affine(x).sum())
            assert torch.equal(base, torch.full_like(base, step))
        refused(run)  # when it would be replayed
        halves = torch.zeros(14, device=device)
        torch.testing.assert_close(run(x, halves[:8], halves[8:]), halves.sum() + eager_affine(x).sum())
        assert halves.tolist() == [1.0] * 8 + [0.0] * 6


# ---- closing in the middle of a call


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


# ---- what a program writes into its arguments


@pytest.mark.parametrize("nested", [False, True])
def test_engines_that_write_into_an_argument(device: str, nested: bool) -> None:
    def body(y: torch.Tensor, out: Any) -> torch.Tensor:
        program.engine(y, out=out[0] if nested else out)
        return y + 1

    program = Program(device, body)
    with enable_cudagraphs(program, whole_graph=True) as run:
        for _ in range(3):
            x, out = batch(device), torch.zeros(3, 7, device=device)
            torch.testing.assert_close(run(x, [out] if nested else out), eager_affine(x) + 1)
            torch.testing.assert_close(out, eager_affine(eager_affine(x)))


def test_a_program_that_replaces_an_item_of_a_list_is_refused(device: str) -> None:
    def body(y: torch.Tensor, state: list[torch.Tensor]) -> torch.Tensor:
        state[0] = state[0] + 1
        return y + state[0]

    with (
        enable_cudagraphs(Program(device, body), whole_graph=True) as run,
        pytest.raises(ExecutionError, match=r"replaces items of a list or dict"),
    ):
        run(batch(device), [torch.zeros(3, 7, device=device)])


# ---- calls that are served without Python


def served(run: torch.nn.Module, *args: torch.Tensor) -> Any:
    """The result of a call that must not reach Python code of the wrapper."""
    assert isinstance(run, WholeGraph)
    before = run.stats()["replays"]
    run.forward = None  # type: ignore[assignment]  # nn.Module's call would fail
    try:
        result = run(*args)
    finally:
        del run.forward
    assert run.stats()["replays"] == before + 1
    return result


@pytest.mark.parametrize("buffers", [0, 1, 3])
@pytest.mark.parametrize("outputs", ["one", "tuple", "dict", "single", "none"])
def test_plain_calls_are_served_without_python(device: str, buffers: int, outputs: str) -> None:
    shapes = {
        "one": lambda y, z: y + z,
        "tuple": lambda y, z: (y + z, y - z),
        "dict": lambda y, z: {"sum": y + z, "other": [y - z, 3]},
        "single": lambda y, z: (y + z,),
        "none": lambda y, z: None,
    }
    program = Program(device, shapes[outputs])
    with (
        enable_pre_allocated_outputs(program, buffers=max(buffers, 1)) if buffers else nullcontext(),
        enable_cudagraphs(program, whole_graph=True) as run,
    ):
        run(batch(device), batch(device))
        held = []
        for _ in range(7):
            x, z = batch(device), batch(device)
            result = served(run, x, z)
            expected = shapes[outputs](eager_affine(x), z)
            torch.testing.assert_close(result, expected)
            held.append((result, expected))
            for earlier, was in held[-buffers:] if buffers else held:
                torch.testing.assert_close(earlier, was)
        assert captures(run) == 1


def test_several_kinds_of_plain_calls(device: str) -> None:
    with enable_cudagraphs(Program(device), whole_graph=True) as run:
        for size in (3, 5, 4):
            run(batch(device, size))
        for size in (5, 3, 4, 4, 3):
            x = batch(device, size)
            torch.testing.assert_close(served(run, x), eager_affine(x) * 2)
        assert captures(run) == 3


def test_dense_tensors_in_another_order_are_served_without_python(device: str) -> None:
    with enable_cudagraphs(Program(device, lambda y, z: y + z), whole_graph=True) as run:
        for number in range(3):
            x, z = batch(device), torch.randn(7, 3, device=device).t()
            result = served(run, x, z) if number else run(x, z)
            torch.testing.assert_close(result, eager_affine(x) + z)
        assert captures(run) == 1


def test_many_plain_arguments(device: str) -> None:
    """More than one node of a graph copies at once."""
    with enable_cudagraphs(
        Program(device, lambda y, *rest: (y, *(z + 1 for z in rest))), whole_graph=True
    ) as run:
        for number in range(3):
            x, *rest = (batch(device) for _ in range(20))
            result = served(run, x, *rest) if number else run(x, *rest)
            torch.testing.assert_close(result, (eager_affine(x), *(z + 1 for z in rest)))


def test_static_and_other_arguments_in_turn(device: str) -> None:
    with enable_cudagraphs(Program(device, lambda y, z: y + z), whole_graph=True) as run:
        run(batch(device), batch(device))
        x, z = run.graph_inputs
        for _ in range(2):
            for tensor in (x, z):
                tensor.normal_()
            torch.testing.assert_close(served(run, x, z), eager_affine(x) + z)
            other = batch(device)
            torch.testing.assert_close(served(run, other, z), eager_affine(other) + z)
            torch.testing.assert_close(served(run, x, z), eager_affine(other) + z)


# ---- parameters


class Scaled(torch.nn.Module):
    """An engine, and a parameter that its result is multiplied by."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.engine = affine(device)
        self.scale = torch.nn.Parameter(torch.full((7,), 2.0, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.engine(x) * self.scale


def new_data(program: Scaled) -> None:
    program.scale.data = torch.full_like(program.scale, 3.0)


def new_parameter(program: Scaled) -> None:
    program.scale = torch.nn.Parameter(torch.full_like(program.scale, 3.0))


def in_place(program: Scaled) -> None:
    with torch.no_grad():
        program.scale.fill_(3.0)


@pytest.mark.parametrize("change", [new_data, new_parameter, in_place])
def test_parameters_that_change(device: str, change: Any) -> None:
    program = Scaled(device)
    with enable_cudagraphs(program, whole_graph=True) as run:
        for _ in range(2):
            x = batch(device)
            torch.testing.assert_close(run(x), (eager_affine(x) * 2))
        change(program)
        for _ in range(2):
            x = batch(device)
            torch.testing.assert_close(run(x), (eager_affine(x) * 3))


@pytest.mark.parametrize("declared", ["argument", "attribute"])
def test_frozen_programs_may_change_in_place(device: str, declared: str) -> None:
    program = Scaled(device)
    if declared == "attribute":
        program.is_frozen = True
    frozen = True if declared == "argument" else None
    with enable_cudagraphs(program, whole_graph=True, frozen=frozen) as run:
        x = batch(device)
        run(x)
        in_place(program)
        torch.testing.assert_close(served(run, x), eager_affine(x) * 3)


def test_modes_that_change(device: str) -> None:
    program = Program(device)
    x = batch(device)
    with enable_cudagraphs(program, whole_graph=True) as run:
        run(x)
        first = served(run, x)
        with enable_pre_allocated_outputs(program):
            run(x)
            assert served(run, x) is served(run, x)
        torch.testing.assert_close(run(x), first)
        assert served(run, x) is not served(run, x)


def test_another_threads_call_while_a_hook_is_added() -> None:
    """PyTorch adds a hook in two steps, and a thread may call the engine between them."""
    program = Program("cpu")
    x = batch("cpu")
    results: list[torch.Tensor] = []

    class AddsSlowly(OrderedDict[int, Any]):
        def __setitem__(self, key: int, hook: Any) -> None:
            super().__setitem__(key, hook)
            with ThreadPoolExecutor(1) as other:
                results.append(other.submit(program.engine, x).result())

    program.engine._forward_pre_hooks = AddsSlowly()
    with enable_cudagraphs(program, whole_graph=True) as run:
        torch.testing.assert_close(run(x), eager_affine(x) * 2)
    assert results
    torch.testing.assert_close(results[0], eager_affine(x))


def free(tensor: torch.Tensor) -> None:
    with contextlib.suppress(RuntimeError):  # PyTorch may refuse it
        tensor.untyped_storage().resize_(0)


def assign(tensor: torch.Tensor) -> None:
    tensor.data = torch.zeros(2, device=tensor.device)


@pytest.mark.parametrize("change", [free, assign, torch.Tensor.t_], ids=["free", "assign", "t_"])
@pytest.mark.parametrize("calls", [1, 2])
def test_static_inputs_that_callers_alter(device: str, change: Any, calls: int) -> None:
    """The graph's own memory is not in the callers' hands."""
    with enable_cudagraphs(Program(device), whole_graph=True) as run:
        for _ in range(calls):
            run(batch(device))
        for _ in range(3):
            change(run.graph_inputs[0])
            # What would be written into freed memory would be found here.
            others = [torch.zeros(3, 7, device=device) for _ in range(64)]
            x = batch(device)
            torch.testing.assert_close(run(x), eager_affine(x) * 2)
            assert not any(other.any() for other in others)
        assert captures(run) == 1


def resize(tensor: torch.Tensor) -> None:
    tensor.resize_(1)


@pytest.mark.parametrize("change", [assign, resize, torch.Tensor.t_], ids=["assign", "resize", "t_"])
def test_a_program_that_alters_the_shape_or_memory_of_an_argument_is_refused(
    device: str, change: Any
) -> None:
    def body(y: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        change(state)
        return y

    x, state = batch(device), torch.zeros(2, 3, device=device)
    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(2):
            with pytest.raises(ExecutionError, match="another shape or other memory"):
                run(x, state)
        assert state.shape == (2, 3)
        assert not state.any()


def test_arguments_that_a_transform_has_wrapped_are_refused() -> None:
    x = batch("cpu")
    with enable_cudagraphs(Program("cpu"), whole_graph=True) as run:
        for _ in range(2):
            with pytest.raises(InputError, match=r"torch\.func"):
                torch.func.grad(lambda v: run(v).sum())(x)
            torch.testing.assert_close(run(x), eager_affine(x) * 2)
