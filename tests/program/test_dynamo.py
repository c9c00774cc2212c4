"""torch.compile(backend="trt_rt")."""

from __future__ import annotations

import copy
import gc
import importlib.metadata
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import trt_rt
from tests.dynamo_backend import register
from trt_rt.module.find_engines import find_engines
from trt_rt.program import dynamo
from trt_rt.program.dynamo import trt_rt_backend

# PyTorch's own code warns about itself while it compiles.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch.*"),
]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    torch._dynamo.reset()
    register()
    yield
    torch._dynamo.reset()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.second = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def check(compiled: Any, model: Any, *batches: int) -> None:
    for batch in batches:
        x = torch.randn(batch, 4)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x))


def test_the_entry_point_names_the_backend() -> None:
    declared = [
        point
        for point in importlib.metadata.entry_points(group="torch_dynamo_backends")
        if point.name == "trt_rt"
    ]
    if not declared:
        pytest.skip("the installed metadata is older than the entry point: install trt_rt again")
    assert declared[0].load() is trt_rt_backend


def test_a_model_runs_in_an_engine() -> None:
    model = Net().eval()
    compiled = torch.compile(model, backend="trt_rt", fullgraph=True)
    check(compiled, model, 3)
    (engine,) = find_engines(compiled)
    assert engine.stats()["calls"] == 1
    assert find_engines(model) == [engine]


def test_a_module_of_pytorch_s_own_has_its_engines() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    compiled = torch.compile(model, backend="trt_rt")
    check(compiled, model, 3)
    assert len(find_engines(compiled)) == 1


def test_sizes_become_dynamic_by_themselves(caplog: pytest.LogCaptureFixture) -> None:
    model = Net().eval()
    counter = torch._dynamo.testing.CompileCounterWithBackend("trt_rt")
    compiled = torch.compile(model, backend=counter)
    check(compiled, model, 4, 5, 6, 7)
    assert counter.frame_count == 2
    with caplog.at_level(logging.WARNING, "trt_rt.compiler"):
        check(compiled, model, 200)  # more than was left room for
    assert "outgrown" in caplog.text
    check(compiled, model, 4, 150)
    assert counter.frame_count == 2


def test_marked_ranges_are_profiles() -> None:
    model = Net().eval()
    compiled = torch.compile(model, backend="trt_rt")
    x = torch.randn(4, 4)
    torch._dynamo.mark_dynamic(x, 0, min=2, max=32)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))
    (engine,) = find_engines(compiled)
    (profile,) = engine.engine.inputs[0].profiles
    assert (profile.min[0], profile.max[0]) == (2, 32)
    check(compiled, model, 8, 30)
    assert find_engines(compiled) == [engine]


def test_a_graph_break_makes_two_programs() -> None:
    class Breaks(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            torch._dynamo.graph_break()
            return self.second(y)

    model = Breaks().eval()
    compiled = torch.compile(model, backend="trt_rt")
    check(compiled, model, 3)
    assert len(find_engines(compiled)) == 2


def test_what_the_model_changes_is_changed() -> None:
    class Changes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls.add_(1)
            x.mul_(2)
            return (x + self.calls).relu() * 3

    model, other = Changes().eval(), Changes().eval()
    compiled = torch.compile(model, backend="trt_rt")
    for _ in range(3):
        x = torch.randn(3, 4)
        y = x.clone()
        torch.testing.assert_close(compiled(x), other(y))
        torch.testing.assert_close(x, y)
    torch.testing.assert_close(model.calls, other.calls)


def test_aliases_stay_aliases() -> None:
    class Aliases(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = torch.relu(x * 2 + 1)
            return y, y.t(), x.view(-1)

    compiled = torch.compile(Aliases(), backend="trt_rt")
    x = torch.randn(3, 4)
    y, transposed, flat = compiled(x)
    assert transposed.data_ptr() == y.data_ptr()
    assert flat.data_ptr() == x.data_ptr()


def test_dynamic_true_folds_the_numbers_of_modules() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.LayerNorm(8)).eval()
    compiled = torch.compile(model, backend="trt_rt", dynamic=True)
    check(compiled, model, 3, 5, 9)


def test_options_are_those_of_compile() -> None:
    model = Net().eval()
    compiled = torch.compile(model, backend="trt_rt", options={"torch_executed_ops": ["aten.relu"]})
    check(compiled, model, 3)
    with pytest.raises(ValueError, match="no TensorRT engine"):
        find_engines(compiled)


def test_an_unknown_option_is_refused() -> None:
    compiled = torch.compile(Net().eval(), backend="trt_rt", options={"min_blok_size": 1})
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="did you mean 'min_block_size'"):
        compiled(torch.randn(3, 4))


def test_controls_reach_the_engines() -> None:
    model = Net().eval()
    compiled = torch.compile(model, backend="trt_rt")
    check(compiled, model, 3)
    x = torch.randn(3, 4)
    with torch.no_grad():
        wanted = model(x)
        with trt_rt.enable_pre_allocated_outputs(compiled):
            torch.testing.assert_close(compiled(x), wanted)


def test_a_function_is_compiled() -> None:
    @torch.compile(backend="trt_rt")
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * 2 + 1) - 3

    x = torch.randn(3, 4)
    torch.testing.assert_close(function(x), torch.relu(x * 2 + 1) - 3)


def test_programs_go_with_the_code_of_dynamo() -> None:
    model = Net().eval()
    check(torch.compile(model, backend="trt_rt"), model, 3)
    assert len(find_engines(model)) == 1
    copied = copy.deepcopy(model)
    torch._dynamo.reset()
    gc.collect()
    for module in (model, copied):
        with pytest.raises(ValueError, match="no TensorRT engine"):
            find_engines(module)


def test_defaults_of_the_process_reach_engines_that_are_made_later() -> None:
    model = Net().eval()
    compiled = torch.compile(model, backend="trt_rt")
    trt_rt.set_cudagraphs_mode(True)
    try:
        check(compiled, model, 3, 3)
        (engine,) = find_engines(compiled)
        assert engine.stats()["captures"] >= 1
    finally:
        trt_rt.set_cudagraphs_mode(False)


class Replaces(nn.Module):
    """Gives one of its tensors up for another at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("total", torch.zeros(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total = self.total + self.linear(x)
        return torch.relu(self.total * 2)


def test_a_buffer_that_is_replaced_is_read_anew() -> None:
    model = Replaces().eval()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="trt_rt", options={"cache_dir": None})
    with torch.no_grad():
        for _ in range(4):
            x = torch.randn(3, 4)
            torch.testing.assert_close(compiled(x), other(x))
    torch.testing.assert_close(model.total, other.total)


def test_a_weight_that_is_replaced_is_read_anew() -> None:
    model = Net().eval()
    compiled = torch.compile(model, backend="trt_rt", options={"cache_dir": None})
    check(compiled, model, 3)
    model.second[0].weight = nn.Parameter(torch.randn(8, 4))
    check(compiled, model, 3)
    model.second[0].weight = nn.Parameter(torch.randn(8, 4))
    check(compiled, model, 3)


class Scales(nn.Module):
    """Has a number that its user changes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * self.scale + 1) * 3


def test_a_number_of_a_module_may_change(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamo, "_MOST_NUMBERS", 2)
    model = Scales()
    compiled = torch.compile(model, backend="trt_rt", options={"cache_dir": None})
    with caplog.at_level(logging.WARNING, "trt_rt.compiler"):
        for number in range(5):
            model.scale = 1.5 + number
            check(compiled, model, 3)
    assert [record.getMessage() for record in caplog.records if "scale changes" in record.getMessage()]
    model.scale = 3.5
    check(compiled, model, 3)


def test_zeros_of_either_sign_and_nan_have_programs_of_their_own() -> None:
    class Divides(Scales):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x / self.scale - 1) * 3

    model = Divides()
    compiled = torch.compile(model, backend="trt_rt", options={"cache_dir": None})
    x = torch.ones(2, 4)
    for scale in (1.5, 0.0, -0.0, float("nan"), 0.0, float("nan"), -0.0):
        model.scale = scale
        torch.testing.assert_close(compiled(x), model(x), equal_nan=True)
    assert len(find_engines(compiled)) == 4


def test_numbers_among_the_arguments_may_change() -> None:
    def rows(x: torch.Tensor, count: int, scale: float) -> torch.Tensor:
        return torch.relu(x[:count] * scale + count) * 3

    compiled = torch.compile(rows, backend="trt_rt", options={"cache_dir": None})
    x = torch.randn(6, 4)
    for count, scale in ((2, 0.5), (3, 1.5), (4, 2.5), (3, 1.5)):
        torch.testing.assert_close(compiled(x, count, scale), rows(x, count, scale))
