"""`tests.quirky_tensorrt` has the habits that it says it has, and the runtime is right with them."""

from __future__ import annotations

import pytest
import torch

from tests.quirky_tensorrt import GRANULARITY, Quirk, quirky_backend
from tests.reference import plans
from tests.reference.harness import RecordingAllocator, RecordingLogger
from tests.reference.plans import eager_affine
from trt_rt import Engine, TRTModule, reference


class Context:
    """A quirky context, the engine that made it, and its log."""

    def __init__(self, plan: bytes, quirks: Quirk, **options: object) -> None:
        self.logger = RecordingLogger()
        api = quirky_backend(quirks, **options).api  # type: ignore[arg-type]
        self.engine = api.Runtime(self.logger).deserialize_cuda_engine(plan)
        assert self.engine is not None, self.logger.errors
        self.context = self.engine.create_execution_context()


def run_nonzero(quirks: Quirk, *inputs: torch.Tensor) -> tuple[Context, RecordingAllocator]:
    made = Context(plans.nonzero(), quirks)
    allocator = RecordingAllocator(torch.device("cpu"))
    made.context.set_output_allocator("output0", allocator)
    for x in inputs:
        made.context.set_input_shape("x", tuple(x.shape))
        made.context.set_tensor_address("x", x.data_ptr())
        other = torch.empty_like(x)
        made.context.set_tensor_address("output1", other.data_ptr())
        assert made.context.execute_async_v3(0), made.logger.errors
    return made, allocator


@pytest.mark.parametrize(
    ("quirks", "expected"), [(Quirk.REMEMBERED_OUTPUT_SHAPES, (4, 2)), (Quirk.ROUNDED_SIZES, (-1, 2))]
)
def test_remembered_output_shapes(quirks: Quirk, expected: tuple[int, ...]) -> None:
    x = torch.zeros(3, 5)
    x.view(-1)[:4] = 1
    made, _ = run_nonzero(quirks, x)
    assert tuple(made.context.get_tensor_shape("output0")) == expected
    made.context.set_input_shape("x", (2, 5))
    assert tuple(made.context.get_tensor_shape("output0")) == expected
    assert tuple(made.engine.create_execution_context().get_tensor_shape("output0")) == (-1, 2)


@pytest.mark.parametrize(
    ("quirks", "expected"),
    [(Quirk.ROUNDED_SIZES, [GRANULARITY, 0]), (Quirk.COPIED_SHAPE_VALUES, [15 * 2 * 8, 1])],
)
def test_sizes_that_allocators_are_asked_for(quirks: Quirk, expected: list[int]) -> None:
    _, allocator = run_nonzero(quirks, torch.ones(3, 5), torch.zeros(3, 5))
    assert [size for _, _, size, _, _ in allocator.requests] == expected
    assert tuple(allocator.shapes[-1][1]) == (0, 2)


@pytest.mark.parametrize(
    ("quirks", "expected"), [(Quirk.COPIED_SHAPE_VALUES, (3,)), (Quirk.ROUNDED_SIZES, (5,))]
)
def test_shape_values_that_change_in_place(quirks: Quirk, expected: tuple[int, ...]) -> None:
    made = Context(plans.shape_tensor(), quirks)
    length = torch.tensor([3])
    assert made.context.set_tensor_address("length", length.data_ptr())
    length.fill_(5)
    assert tuple(made.context.get_tensor_shape("output0")) == expected
    assert made.context.get_tensor_address("length") == length.data_ptr()
    made.context.set_tensor_address("length", length.data_ptr())
    assert tuple(made.context.get_tensor_shape("output0")) == (5,)


def test_a_first_enqueue_in_a_capture() -> None:
    capturing = True
    made = Context(plans.affine(), Quirk.NO_FIRST_ENQUEUE_IN_CAPTURE, is_capturing=lambda stream: capturing)
    x, y = torch.randn(2, 7), torch.empty(2, 7)
    made.context.set_input_shape("x", (2, 7))
    made.context.set_tensor_address("x", x.data_ptr())
    made.context.set_tensor_address("output0", y.data_ptr())
    assert not made.context.execute_async_v3(0)
    assert "stream is capturing" in made.logger.take_error()
    capturing = False
    assert made.context.execute_async_v3(0)
    capturing = True
    assert made.context.execute_async_v3(0)
    torch.testing.assert_close(y, eager_affine(x))


def test_misaligned_scratch_memory_is_ignored() -> None:
    made = Context(plans.streaming(), Quirk.MISALIGNED_MEMORY_IGNORED)
    context = made.engine.create_execution_context(reference.ExecutionContextAllocationStrategy.USER_MANAGED)
    x, y = torch.randn(2, 1, 8, 8), torch.empty(2, 32)
    context.set_input_shape("x", tuple(x.shape))
    context.set_tensor_address("x", x.data_ptr())
    context.set_tensor_address("output0", y.data_ptr())
    context.set_device_memory(GRANULARITY + GRANULARITY // 2, 2**30)
    assert not context.execute_async_v3(0)
    assert "device memory is managed by the user" in made.logger.take_error()
    context.set_device_memory(GRANULARITY, 2**30)
    assert context.execute_async_v3(0), made.logger.errors


def test_profile_switches_are_logged() -> None:
    made = Context(plans.profiles(), Quirk.PROFILE_SWITCH_LOGGED)
    assert made.context.set_optimization_profile_async(1, 0)
    assert made.logger.errors == []
    assert any("profile to 1" in message for _, message in made.logger.messages)


@pytest.mark.parametrize("quirks", [Quirk.ROUNDED_SIZES, Quirk.PROFILE_SWITCH_LOGGED])
def test_a_module_is_right(quirks: Quirk) -> None:
    module = TRTModule(Engine.from_bytes(plans.nonzero(), backend=quirky_backend(quirks), device="cpu"))
    for rows in (1, 3, 2, 3):
        x = torch.randn(rows, 5).relu()
        indices, doubled = module(x)
        torch.testing.assert_close(indices, torch.nonzero(x))
        torch.testing.assert_close(doubled, x * 2)
    nothing, _ = module(torch.zeros(3, 5))
    assert nothing.shape == (0, 2)
