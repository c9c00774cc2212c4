"""Where results go: fresh, pre-allocated, or allocated by TensorRT; switched at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import isolated
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import TRTModule


def test_fresh_results_are_the_callers(module: TRTModule) -> None:
    inputs = [torch.randn(3, 7) for _ in range(5)]
    results = [module(x) for x in inputs]
    for x, result in zip(inputs, results, strict=True):
        torch.testing.assert_close(result, eager_affine(x))
    assert len({result.data_ptr() for result in results}) == 5


@pytest.mark.parametrize("buffers", [0, -1])
def test_a_number_of_buffers_that_makes_no_sense(module: TRTModule, x: torch.Tensor, buffers: int) -> None:
    with pytest.raises(ValueError, match="buffers"):
        module.set_pre_allocated_outputs(True, buffers=buffers)
    torch.testing.assert_close(module(x), eager_affine(x))


@pytest.mark.parametrize(
    "change",
    [
        lambda result: result.unsqueeze_(0),
        lambda result: result.t_(),
        lambda result: result.resize_(2, 2),
        lambda result: result.resize_(0),
        lambda result: result.set_(torch.zeros(3, 7)),
        lambda result: setattr(result, "data", torch.zeros(3, 7)),
        lambda result: setattr(result, "data", result.view(torch.int32)),
    ],
    ids=["unsqueeze_", "t_", "resize_", "resize_(0)", "set_", "data", "other dtype"],
)
def test_a_pre_allocated_result_that_is_changed_in_place(
    module: TRTModule, x: torch.Tensor, change: Any
) -> None:
    module.set_pre_allocated_outputs(True)
    change(module(x))
    result = module(x)
    assert not result.requires_grad
    torch.testing.assert_close(result, eager_affine(x))


def test_pre_allocated_memory_cannot_be_freed_through_a_result(module: TRTModule, x: torch.Tensor) -> None:
    module.set_pre_allocated_outputs(True)
    result = module(x)
    for change in (lambda: result.resize_(100, 100), lambda: result.untyped_storage().resize_(0)):
        with pytest.raises(RuntimeError, match="resizable"):
            change()
    torch.testing.assert_close(module(x), eager_affine(x))


def test_pre_allocated_outputs_made_under_inference_mode_are_ordinary(
    module: TRTModule, x: torch.Tensor
) -> None:
    module.set_pre_allocated_outputs(True)
    with torch.inference_mode():
        module(x)
    result = module(x)
    assert not result.is_inference()
    torch.testing.assert_close(result.add_(1), eager_affine(x) + 1)


def test_modes_are_switched_at_any_time(module: TRTModule) -> None:
    held = []
    for step, enable in enumerate([False, True, True, False, True, False, False]):
        module.set_pre_allocated_outputs(enable, buffers=1 + step % 2)
        for batch in (3, 1, 3, 5):
            x = torch.randn(batch, 7)
            result = module(x)
            torch.testing.assert_close(result, eager_affine(x))
            if not enable:
                held.append((result, eager_affine(x)))
    for result, expected in held:
        torch.testing.assert_close(result, expected)


def test_pre_allocated_memory_is_of_the_right_shape_after_other_kinds_of_calls(tmp_path: Path) -> None:
    # In a process of its own: wrong, the engine writes over the end of memory that is too small.
    code = """
    module = TRTModule(plan)
    module.set_pre_allocated_outputs(True)
    first, second = torch.randn(3, 7), torch.randn(8, 7)
    for between in (
        lambda: module(second, out=torch.empty(8, 7)),
        lambda: module.bind(second, out=torch.empty(8, 7)),
        lambda: module.bind(second, out=torch.empty(8, 7))(),
        lambda: module.bind(second),
        lambda: module.bind(second)(),
    ):
        module(first)
        between()
        result = module(second)
        assert result.shape == (8, 7)
        assert torch.equal(result, torch.relu(second) * 2 + 1)
    """
    done = isolated.run(code, plans.affine(), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_requires_output_allocator(x: torch.Tensor) -> None:
    made = TRTModule(plans.affine(), requires_output_allocator=True)
    first = made(x)
    second = made(-x)
    torch.testing.assert_close((first, second), (eager_affine(x), eager_affine(-x)))
    assert first.untyped_storage().nbytes() == first.nbytes
