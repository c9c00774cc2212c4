"""enable_profiling: whose times it has, and what they survive."""

from __future__ import annotations

import threading

import pytest
import torch

from tests.reference import plans
from tests.reference.plans import eager_affine
from tests.runtime.budget_engines import streaming_plan
from trt_rt import Engine, TRTModule
from trt_rt.runtime import (
    LayerTime,
    enable_cudagraphs,
    enable_output_allocator,
    enable_profiling,
    use_dynamically_allocated_resources,
    weight_streaming,
)


@pytest.fixture
def module() -> TRTModule:
    return TRTModule(Engine.from_bytes(plans.affine(), name="affine"))


def test_every_layer_of_every_run(module: TRTModule, x: torch.Tensor) -> None:
    with enable_profiling(module) as profile:
        assert profile.layers == []
        for _ in range(3):
            torch.testing.assert_close(profile(x), eager_affine(x))
    names = [time.layer for time in profile.layers]
    assert len(names) == len(set(names)) >= 3
    assert any("relu" in name for name in names)
    for time in profile.layers:
        assert (time.engine, time.runs) == ("affine", 3)
        assert 0 < time.ms <= time.total_ms
    assert profile.total_ms == pytest.approx(sum(time.total_ms for time in profile.layers))


def test_it_stays_readable_and_hears_no_more(module: TRTModule, x: torch.Tensor) -> None:
    with enable_profiling(module) as profile:
        profile(x)
    before = profile.layers
    module(x)
    assert profile.layers == before


def test_each_entry_has_times_of_its_own(module: TRTModule, x: torch.Tensor) -> None:
    context = enable_profiling(module)
    with context as first:
        first(x)
    with context as second:
        assert second.layers == []
        second(x)
        second(x)
    assert {time.runs for time in first.layers} == {1}
    assert {time.runs for time in second.layers} == {2}


def test_the_inner_of_two_is_told(module: TRTModule, x: torch.Tensor) -> None:
    with enable_profiling(module) as outer:
        with enable_profiling(module) as inner:
            module(x)
        assert outer.layers == []
        module(x)
        module(x)
    assert {time.runs for time in inner.layers} == {1}
    assert {time.runs for time in outer.layers} == {2}


def test_it_survives_every_new_context(x: torch.Tensor) -> None:
    module = TRTModule(streaming_plan(100))
    x = torch.randn(3, 4)
    with enable_profiling(module) as profile:
        profile(x)
        with use_dynamically_allocated_resources(module):
            profile(x)
        with weight_streaming(module) as streaming:
            streaming.device_budget = 0
            profile(x)
        with enable_output_allocator(module):
            profile(x)
        thread = threading.Thread(target=profile, args=(x,))
        thread.start()
        thread.join()
    assert {time.runs for time in profile.layers} == {5}


def test_engines_of_a_tree_are_told_apart(x: torch.Tensor) -> None:
    tree = torch.nn.Sequential(
        TRTModule(Engine.from_bytes(plans.affine(), name="first")),
        TRTModule(Engine.from_bytes(plans.affine(), name="second")),
    )
    with enable_profiling(tree) as profile:
        profile(x)
        tree[1](x)
    assert list(dict.fromkeys(time.engine for time in profile.layers)) == ["first", "second"]
    assert {time.runs for time in profile.layers if time.engine == "first"} == {1}
    assert {time.runs for time in profile.layers if time.engine == "second"} == {2}


def test_the_table(module: TRTModule, x: torch.Tensor) -> None:
    with enable_profiling(module) as profile:
        assert profile.table().split() == ["engine", "layer", "runs", "ms", "share"]
        profile(x)
    heading, *rows = profile.table().splitlines()
    assert len(rows) == len(profile.layers)
    assert len({len(line) for line in (heading, *rows)}) == 1
    slowest = max(profile.layers, key=lambda time: time.total_ms)
    assert rows[0].split()[:3] == ["affine", slowest.layer, "1"]
    shares = [float(row.split()[-1].rstrip("%")) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(rows))


def test_warm_up_can_be_forgotten(module: TRTModule, x: torch.Tensor) -> None:
    with enable_profiling(module) as profile:
        profile(x)
        profile.reset()
        assert profile.layers == []
        profile(x)
    assert {time.runs for time in profile.layers} == {1}


def test_the_time_of_one_run_is_the_mean() -> None:
    assert LayerTime("engine", "layer", runs=4, total_ms=10.0).ms == 2.5


def test_graphs_and_profiling_exclude_each_other(module: TRTModule, x: torch.Tensor) -> None:
    with enable_profiling(module) as profile:
        for whole_graph in (False, True):
            with pytest.raises(ValueError, match=r"^enable_cudagraphs cannot .* enable_profiling is on"):
                enable_cudagraphs(module, whole_graph=whole_graph).__enter__()
        profile(x)
    for whole_graph in (False, True):
        with enable_cudagraphs(module, whole_graph=whole_graph) as called:
            with pytest.raises(ValueError, match=r"^enable_profiling cannot .* enable_cudagraphs is on"):
                enable_profiling(module).__enter__()
            torch.testing.assert_close(called(x), eager_affine(x))
