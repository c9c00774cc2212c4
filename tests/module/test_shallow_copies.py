"""copy.copy of a module, and what PyTorch makes of it to run replicas."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.reference import plans
from trt_rt import TRTModule
from trt_rt.runtime import enable_pre_allocated_outputs


def test_it_shares_the_engine(module: TRTModule, x: torch.Tensor) -> None:
    module(x)
    other = copy.copy(module)
    assert type(other) is TRTModule
    assert other.engine is module.engine
    for _ in range(2):
        torch.testing.assert_close(other(x), plans.eager_affine(x))
        torch.testing.assert_close(module(x), plans.eager_affine(x))


def test_it_shares_what_users_have_set_and_not_the_dict(module: TRTModule) -> None:
    module.note = ["mine"]
    other = copy.copy(module)
    assert other.note is module.note
    other.note = ["its own"]
    assert module.note == ["mine"]


def test_it_has_executors_and_modes_of_its_own(module: TRTModule, x: torch.Tensor) -> None:
    other = copy.copy(module)
    with enable_pre_allocated_outputs(module):
        first = module(x)
        results = [first, other(x), other(x)]
        assert len({result.data_ptr() for result in results}) == 3
        assert module(x).data_ptr() == first.data_ptr()
        assert other.executors.modes.pre_allocated_outputs == 0


def test_it_outlives_its_original(x: torch.Tensor) -> None:
    other = copy.copy(TRTModule(plans.affine()))
    torch.testing.assert_close(other(x), plans.eager_affine(x))


class Detector(TRTModule):
    """A subclass that is constructed from something else."""

    def __init__(self, threshold: float) -> None:
        super().__init__(plans.affine())
        self.threshold = threshold


def test_a_subclass_with_a_constructor_of_its_own(x: torch.Tensor) -> None:
    other = copy.copy(Detector(0.25))
    assert type(other) is Detector
    assert other.threshold == 0.25
    torch.testing.assert_close(other(x), plans.eager_affine(x))


@pytest.mark.parametrize("nested", [False, True])
def test_a_replica_as_data_parallel_makes_it(module: TRTModule, x: torch.Tensor, nested: bool) -> None:
    """nn.parallel.replicate copies every module so, for each device."""
    original = torch.nn.Sequential(module) if nested else module
    for part in original.modules():
        replica = part._replicate_for_data_parallel()
        if isinstance(part, TRTModule):
            assert replica.engine is module.engine
            torch.testing.assert_close(replica(x), plans.eager_affine(x))
            torch.testing.assert_close(module(x), plans.eager_affine(x))
