"""A TRTModule is copied, stored, moved and nested like any other nn.Module."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import TRTModule


def test_deepcopy_shares_the_engine_and_has_its_own_context(module: TRTModule, x: torch.Tensor) -> None:
    module(x)
    other = copy.deepcopy(module)
    assert other.engine is module.engine
    assert other.executor is not module.executor
    y = torch.randn(5, 7)
    for _ in range(2):
        torch.testing.assert_close(other(y), eager_affine(y))
        torch.testing.assert_close(module(x), eager_affine(x))


def test_deepcopy_keeps_what_a_module_has(x: torch.Tensor) -> None:
    module = TRTModule(plans.two(), ["b", "a"], ["increment", "sum"], name="n", settings={"deep": [1]})
    module.eval()
    module.note = ["mine"]
    module.register_forward_hook(lambda m, args, result: result[0])
    other = copy.deepcopy(module)
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    assert (other.name, other.settings, other.training) == ("n", {"deep": [1]}, False)
    assert other.note == ["mine"]
    assert other.note is not module.note
    torch.testing.assert_close(other(b, a), b + 1)  # the hook ran


class Detector(TRTModule):
    """A subclass that is constructed from something else."""

    def __init__(self, threshold: float) -> None:
        super().__init__(plans.affine())
        self.threshold = threshold


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_of_a_subclass_with_a_constructor_of_its_own(duplicate: Any, x: torch.Tensor) -> None:
    other = duplicate(Detector(0.25))
    assert type(other) is Detector
    assert other.threshold == 0.25
    torch.testing.assert_close(other(x), eager_affine(x))


def test_deepcopy_of_a_module_around_it(module: TRTModule, x: torch.Tensor) -> None:
    network = nn.ModuleDict({"one": module, "same": module})
    other = copy.deepcopy(network)
    assert other["one"] is other["same"]
    assert other["one"] is not module
    torch.testing.assert_close(other["one"](x), eager_affine(x))


def test_pickle(x: torch.Tensor) -> None:
    module = TRTModule(plans.two(), ["b", "a"], ["increment", "sum"], name="n", settings={"a": 1})
    module.eval()
    other = pickle.loads(pickle.dumps(module))
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    torch.testing.assert_close(other(b, a), (b + 1, a + b))
    assert (other.name, other.settings, other.training) == ("n", {"a": 1}, False)
    assert other.engine is not module.engine


def test_torch_save(module: TRTModule, x: torch.Tensor) -> None:
    file = io.BytesIO()
    torch.save(nn.Sequential(nn.Linear(7, 7), module), file)
    file.seek(0)
    network = torch.load(file, weights_only=False)
    torch.testing.assert_close(network(x), eager_affine(network[0](x)))


def test_state_dict_is_empty(module: TRTModule) -> None:
    network = nn.Sequential(nn.Linear(7, 7), module)
    assert list(module.state_dict()) == []
    assert list(network.state_dict()) == ["0.weight", "0.bias"]
    network.load_state_dict(network.state_dict())
    assert list(module.parameters()) == []
    assert list(module.buffers()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.to("cpu"),
        lambda module: module.to("meta"),
        lambda module: module.half(),
        lambda module: module.to(torch.float64),
        lambda module: module.eval(),
        lambda module: module.train(),
        lambda module: module.requires_grad_(False),
        lambda module: module.zero_grad(),
        lambda module: module.apply(lambda m: None),
        lambda module: module.share_memory(),
        lambda module: module.to(memory_format=torch.channels_last),
    ],
)
def test_what_every_module_can_be_told(module: TRTModule, x: torch.Tensor, change: Any) -> None:
    change(module)
    torch.testing.assert_close(module(x), eager_affine(x))


def test_nested_in_sequential(x: torch.Tensor) -> None:
    network = nn.Sequential(nn.Linear(7, 7), TRTModule(plans.affine()), nn.Linear(7, 2))
    torch.testing.assert_close(network(x), network[2](eager_affine(network[0](x))))
    network(x).sum().backward()
    assert network[2].weight.grad is not None
    assert network[0].weight.grad is None


def test_extra_repr() -> None:
    text = repr(nn.Sequential(TRTModule(plans.two(), name="pair")))
    for word in ("TRTModule", "'pair'", "'a': torch.float32[?, 3]", "'increment'", "backend='reference'"):
        assert word in text


def test_the_name_is_the_engines_by_default(module: TRTModule) -> None:
    assert module.name == module.engine.name
    assert TRTModule(plans.affine(), name="mine").name == "mine"
