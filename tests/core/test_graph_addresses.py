"""Graphs bake addresses in: which calls share a graph, which copy, and that all of them are right."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch.export import Dim

from tests import isolated
from tests.built_once import built_once
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import TRTModule
from trt_rt import reference as trt
from trt_rt.runtime import enable_cudagraphs, enable_pre_allocated_outputs

MOST_CAPTURES = 8  # four for whole sets of addresses, two that copy in part, two that copy all that can be
EARNED_AFTER = 256
INPUTS = 20  # more than one node of a graph copies


class Sums(torch.nn.Module):
    """Each output is its input plus the first input's sum."""

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(each + inputs[0].sum().to(each.dtype) for each in inputs)


@built_once
def sums(device: str) -> bytes:
    """Twenty inputs and outputs, of sizes that are no multiples of sixteen bytes."""
    inputs = tuple(torch.zeros(3, 1 + 5 * index) for index in range(INPUTS))
    batch = Dim("batch", min=1, max=64)
    return trt.build(
        Sums(), inputs, dynamic_shapes={"inputs": tuple({0: batch} for _ in inputs)}, device=device
    )


def many(count: int, device: str, *shape: int) -> list[torch.Tensor]:
    """Tensors that live side by side, so that each has an address of its own."""
    return [torch.randn(*shape, device=device) for _ in range(count)]


def test_addresses_that_churn_end_captures(device: str) -> None:
    module = TRTModule(plans.affine(device=device), device=device)
    inputs = many(40, device, 3, 7)
    with enable_cudagraphs(module):
        for x in inputs:
            torch.testing.assert_close(module(x), eager_affine(x))
        captures = module.stats()["captures"]
        assert captures <= MOST_CAPTURES
        for x in inputs:
            torch.testing.assert_close(module(x), eager_affine(x))
        assert module.stats()["captures"] == captures


def test_pairs_of_calls_do_not_capture(device: str) -> None:
    """Two calls with each tensor are not worth a graph each."""
    module = TRTModule(plans.affine(device=device), device=device)
    with enable_cudagraphs(module):
        for x in many(40, device, 3, 7):
            torch.testing.assert_close(module(x), eager_affine(x))
            torch.testing.assert_close(module(x), eager_affine(x))
        assert module.stats()["captures"] <= MOST_CAPTURES


def test_addresses_that_come_often_earn_a_graph(device: str) -> None:
    module = TRTModule(plans.affine(device=device), device=device)
    inputs = many(20, device, 3, 7)
    with enable_cudagraphs(module):
        for x in inputs:
            module(x)
        captures = module.stats()["captures"]
        for _ in range(2 * EARNED_AFTER):
            result = module(inputs[-1])
        torch.testing.assert_close(result, eager_affine(inputs[-1]))
        assert module.stats()["captures"] == captures + 1
        inputs[-1].fill_(3.0)
        torch.testing.assert_close(module(inputs[-1]), eager_affine(inputs[-1]))


def test_one_input_churns_and_the_other_stays(device: str) -> None:
    """The one that stays is read where it lies, whatever its size: no memory goes to a copy of it."""
    module = TRTModule(plans.two(device=device), device=device)
    b = torch.randn(32, 3, device=device)
    with enable_cudagraphs(module):
        for step, a in enumerate(many(40, device, 32, 3)):
            if step % 7 == 6:
                b.add_(1.0)
            total, increment = module(a, b)
            torch.testing.assert_close(total, a + b)
            torch.testing.assert_close(increment, b + 1)
        assert module.stats()["captures"] <= MOST_CAPTURES


@pytest.mark.parametrize("buffers", [0, 1, 3])
def test_inputs_and_outputs_that_churn_in_every_way(device: str, buffers: int) -> None:
    module = TRTModule(plans.two(device=device), device=device)
    xs = many(12, device, 5, 3)
    outs = [(torch.empty(5, 3, device=device), torch.empty(5, 3, device=device)) for _ in range(10)]
    pick = torch.Generator().manual_seed(0)
    with enable_cudagraphs(module):
        if buffers:
            module.set_pre_allocated_outputs(True, buffers=buffers)
        for _ in range(300):
            i, j, k, kind = (int(torch.randint(high, (), generator=pick)) for high in (12, 12, 10, 3))
            out = outs[k] if kind == 0 else None
            total, increment = module(xs[i], xs[j], out=out)
            torch.testing.assert_close(total, xs[i] + xs[j])
            torch.testing.assert_close(increment, xs[j] + 1)
            if out is not None:
                assert total is out[0]
                assert increment is out[1]


def test_more_tensors_than_one_node_copies(device: str) -> None:
    module = TRTModule(sums(device), device=device)
    with enable_cudagraphs(module):
        for turn in range(12):
            for batch in (3, 64):
                inputs = [torch.randn(batch, 1 + 5 * index, device=device) for index in range(INPUTS)]
                results = module(*inputs)
                if turn % 3 == 0:
                    inputs = [*inputs[:7], *(each.clone() for each in inputs[7:])]
                    results = module(*inputs)
                for result, expected in zip(results, Sums()(*inputs), strict=True):
                    torch.testing.assert_close(result, expected)
        assert module.stats()["captures"] <= 2 * MOST_CAPTURES


def test_results_are_kept_while_graphs_go_on(device: str) -> None:
    """Outputs that graphs copied are the caller's; calls that follow do not touch them."""
    module = TRTModule(plans.affine(device=device), device=device)
    inputs = many(30, device, 3, 7)
    with enable_cudagraphs(module):
        results = [module(x) for x in inputs for _ in range(2)]
    for x, (first, second) in zip(inputs, zip(results[::2], results[1::2], strict=True), strict=True):
        torch.testing.assert_close(first, eager_affine(x))
        torch.testing.assert_close(second, eager_affine(x))
    assert len({result.data_ptr() for result in results}) == len(results)


def test_caches_that_churn_run_without_graphs(device: str) -> None:
    """The engine writes into the cache, so that it cannot be copied; captures end all the same."""
    module = TRTModule(plans.accumulate(device=device), device=device)
    caches = many(40, device, 8, 4)
    wanted = [cache.clone() for cache in caches]
    xs = many(3, device, 8, 4)
    with enable_cudagraphs(module):
        for turn in range(3):
            for index, cache in enumerate(caches):
                x = xs[(turn + index) % 3]
                module(cache, x)
                wanted[index] += x
                torch.testing.assert_close(cache, wanted[index])
            if turn == 0:
                captures = module.stats()["captures"]
        assert module.stats()["captures"] == captures <= MOST_CAPTURES


def test_out_of_another_shape_between_pre_allocated_calls(device: str) -> None:
    module = TRTModule(plans.affine(device=device), device=device)
    small, large = torch.randn(2, 7, device=device), torch.randn(9, 7, device=device)
    out = torch.empty(9, 7, device=device)
    with enable_cudagraphs(module), enable_pre_allocated_outputs(module):
        for _ in range(2):
            torch.testing.assert_close(module(small), eager_affine(small))
            torch.testing.assert_close(module(large, out=out), eager_affine(large))
            torch.testing.assert_close(module(large), eager_affine(large))


def test_static_inputs_are_worth_a_graph_at_once(device: str) -> None:
    module = TRTModule(plans.affine(device=device), device=device)
    with enable_cudagraphs(module), enable_pre_allocated_outputs(module):
        for x in many(20, device, 3, 7):
            module(x)
        (static,) = module.graph_inputs or ()
        captures = module.stats()["captures"]
        for value in (1.0, -2.0, 3.0):
            static.fill_(value)
            torch.testing.assert_close(module(static), eager_affine(static))
        assert module.stats()["captures"] == captures + 1


@pytest.mark.parametrize(
    ("max_graphs", "shapes", "buffers"),
    [(1, 1, 0), (2, 1, 0), (4, 1, 1), (32, 16, 0), (8, 30, 0), (32, 1, 40)],
)
def test_graphs_do_not_take_each_others_places(
    device: str, max_graphs: int, shapes: int, buffers: int
) -> None:
    """However many addresses and shapes there are, captures end."""
    module = TRTModule(plans.affine(device=device), device=device)
    inputs = [each for size in range(1, shapes + 1) for each in many(12, device, size, 7)]
    with enable_cudagraphs(module, max_graphs=max_graphs):
        if buffers:
            module.set_pre_allocated_outputs(True, buffers=buffers)
        captures = []
        for start in range(4):
            for x in inputs[start::4] * 4:
                torch.testing.assert_close(module(x), eager_affine(x))
            captures.append(module.stats()["captures"])
        assert captures[-1] == captures[-2] <= max_graphs


def test_static_inputs_in_other_places(device: str) -> None:
    """A copy must not overwrite what is still to be read."""
    module = TRTModule(plans.two(device=device), device=device)
    with enable_cudagraphs(module):
        for a, b in zip(many(20, device, 5, 3), many(20, device, 5, 3), strict=True):
            module(a, b)
        first, second = module.graph_inputs or ()
        x = torch.full_like(first, 7.0)
        for a, b in [(second, first), (x, first), (second, x), (first, first), (first, x), (first, second)]:
            first.fill_(1.0)
            second.fill_(10.0)
            wanted = (a + b, b + 1)
            torch.testing.assert_close(module(a, b), wanted)
        first.fill_(1.0)
        module(x, x, out=(first, torch.empty_like(x)))
        torch.testing.assert_close(first, x + x)


def test_graph_inputs_after_calls_that_are_no_graph_calls(device: str) -> None:
    module = TRTModule(plans.two(device=device), device=device)
    a, b = many(2, device, 5, 3)
    with enable_cudagraphs(module):
        module(a, b)
        module.bind(a, b)()
        for static, value in zip(module.graph_inputs or (), (1.0, 2.0), strict=True):
            assert static.shape == (5, 3)
            static.fill_(value)
        total, _ = module(*(module.graph_inputs or ()))
        torch.testing.assert_close(total, torch.full_like(a, 3.0))
        torch.testing.assert_close(module(a[:2], b[:2])[0], a[:2] + b[:2])


@pytest.mark.gpu
def test_a_bound_call_in_the_users_own_capture() -> None:
    """The context was told nothing by calls through graphs; the bound call tells it all."""
    module = TRTModule(plans.affine(device="cuda"), device="cuda")
    x, other = torch.randn(3, 7, device="cuda"), torch.randn(9, 7, device="cuda")
    with enable_cudagraphs(module):
        for _ in range(2):
            module(other)
        bound = module.bind(x)
        module(x)
        module(other)
        module(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = bound()
        x.fill_(2.0)
        graph.replay()
        torch.testing.assert_close(y, eager_affine(x))
        torch.testing.assert_close(module(other), eager_affine(other))


@pytest.mark.gpu
def test_a_new_thread_whose_first_work_is_a_call() -> None:
    module = TRTModule(plans.affine(device="cuda"), device="cuda")
    stream = torch.cuda.Stream()
    inputs = many(20, "cuda", 3, 7)
    torch.cuda.synchronize()
    results = []

    def call() -> None:
        torch.cuda.set_stream(stream)
        results.extend(module(x) for x in inputs[10:])

    with enable_cudagraphs(module):
        with torch.cuda.stream(stream):
            for x in inputs[:10]:
                module(x)
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        stream.synchronize()
    for x, result in zip(inputs[10:], results, strict=True):
        torch.testing.assert_close(result, eager_affine(x))


@pytest.mark.gpu
def test_without_a_compiler_in_the_driver_copies_go_beside_the_graph(tmp_path: Path) -> None:
    """Then the kernel that copies cannot be loaded."""
    code = """
    import pathlib, sys, torch
    from trt_rt import TRTModule
    from trt_rt.runtime import enable_cudagraphs
    module = TRTModule(pathlib.Path(sys.argv[1]).read_bytes(), device="cuda")
    inputs = [torch.randn(3, 7, device="cuda") for _ in range(40)]
    wanted = [torch.relu(x) * 2 + 1 for x in inputs]
    with enable_cudagraphs(module):
        results = [module(x) for x in inputs]
    for result, expected in zip(results, wanted):
        torch.testing.assert_close(result, expected)
    assert module.stats()["replays"] > 20
    """
    plan = tmp_path / "affine.plan"
    plan.write_bytes(plans.affine(device="cuda"))
    isolated.printed_by(code, plan, CUDA_DISABLE_PTX_JIT="1")
