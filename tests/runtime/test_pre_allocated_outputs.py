"""enable_pre_allocated_outputs: how long results last, and when their memory goes."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import Engine, TRTModule, reference
from trt_rt.runtime import enable_pre_allocated_outputs


def test_every_shape_has_buffers_of_its_own(module: TRTModule) -> None:
    addresses = set()
    with enable_pre_allocated_outputs(module) as called:
        for _ in range(3):
            for batch in (8, 12):
                x = torch.randn(batch, 7)
                result = called(x)
                torch.testing.assert_close(result, eager_affine(x))
                assert result.untyped_storage().nbytes() == result.nbytes
                addresses.add(result.data_ptr())
    assert len(addresses) == 2


def test_results_that_are_held_after_it_are_the_callers(module: TRTModule) -> None:
    x = torch.randn(3, 7)
    with enable_pre_allocated_outputs(module) as called:
        result = called(x)
    for _ in range(5):
        module(torch.randn(3, 7))
    torch.testing.assert_close(result, eager_affine(x))


def test_memory_is_freed_on_exit(module: TRTModule) -> None:
    """The storage is gone with the context, though the module goes on."""
    with enable_pre_allocated_outputs(module) as called:
        result = called(torch.randn(3, 7))
        owner = StorageWeakRef(result.untyped_storage())
        del result
        gc.collect()
        assert not owner.expired()
    gc.collect()
    assert owner.expired()


def test_memory_is_freed_when_the_mode_ends_by_an_exception(module: TRTModule) -> None:
    with contextlib.suppress(KeyError), enable_pre_allocated_outputs(module) as called:
        result = called(torch.randn(3, 7))
        owner = StorageWeakRef(result.untyped_storage())
        del result
        raise KeyError
    gc.collect()
    assert owner.expired()


@pytest.mark.parametrize("buffers", [0, -1])
def test_a_number_that_makes_no_sense(module: TRTModule, buffers: int) -> None:
    with pytest.raises(ValueError, match=f"buffers={buffers}"):
        enable_pre_allocated_outputs(module, buffers)


@pytest.mark.parametrize("buffers", [1.0, "2", None])
def test_what_is_no_number(module: TRTModule, buffers: Any) -> None:
    with pytest.raises(TypeError):
        enable_pre_allocated_outputs(module, buffers)


def test_an_integer_of_another_kind(module: TRTModule) -> None:
    with enable_pre_allocated_outputs(module, np.int64(2)):
        assert module.executors.modes.pre_allocated_outputs == 2


def test_outputs_that_tensorrt_allocates_are_not_affected() -> None:
    module = TRTModule(plans.nonzero())
    x = torch.eye(3, 5)
    with enable_pre_allocated_outputs(module) as called:
        first = called(x)
        second = called(torch.zeros_like(x))
    torch.testing.assert_close(first, (torch.nonzero(x), x * 2))
    assert second[0].shape == (0, 2)


@pytest.mark.parametrize("ndim", [2, 5, 6, 8])
def test_an_output_that_was_transposed_in_place_is_made_anew(ndim: int) -> None:
    """PyTorch keeps the sizes of more than five dimensions elsewhere, and changes them where they are."""
    x = torch.randn([2] * ndim)
    plan = reference.build(torch.nn.ReLU(), (x,))
    with Engine.from_bytes(plan, device="cpu") as engine:
        module = TRTModule(engine)
        module.set_pre_allocated_outputs(True)
        first = module(x)
        assert module(x) is first
        first.transpose_(0, ndim - 1)
        result = module(x)
        assert result is not first
        torch.testing.assert_close(result, x.relu())
