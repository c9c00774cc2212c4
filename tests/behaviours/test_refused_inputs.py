"""An input that does not fit is refused in words that help, and never converted silently."""

from __future__ import annotations

import pytest
import torch

import trt_rt
from tests.behaviours.modes import MODES, Caller

pytestmark = pytest.mark.behaviour(13)


def _refusal(module, *inputs):
    with pytest.raises(trt_rt.InputError) as caught:
        module(*inputs)
    return caught.value, str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool])
def test_another_dtype(make, dtype):
    """Another dtype is refused with a TypeError that names the tensor, what came and what is needed."""
    case = make("two")
    module = case.module()
    a, b = case.example(3)
    error, message = _refusal(module, a, b.to(dtype))
    assert isinstance(error, TypeError)
    assert repr(case.inputs[1]) in message
    assert str(dtype) in message
    assert "torch.float32" in message
    case.assert_right(module(a, b), case.expected(a, b))


def test_same_bits_of_another_dtype(make):
    """Dtypes of the same size are told apart, even at the same address as the last call's."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(3)
    module(x)
    for dtype in (torch.int32, torch.uint32):
        error, _ = _refusal(module, x.view(dtype))
        assert isinstance(error, TypeError)
    case.assert_right(module(x), case.expected(x))


def test_another_device(make):
    """A tensor on another device is refused, not moved; the message names both."""
    case = make("two")
    module = case.module()
    a, b = case.example(3)
    for device in ("meta", "cpu"):
        if device == case.device.type:
            continue
        error, message = _refusal(module, a, b.to(device))
        assert isinstance(error, ValueError)
        assert repr(case.inputs[1]) in message
        assert device in message
        assert case.device.type in message
    case.assert_right(module(a, b), case.expected(a, b))


@pytest.mark.gpu
def test_another_gpu(make):
    """A tensor on another GPU is refused, not moved and not read."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs: torch.cuda.device_count() is 1 here")
    case = make("relu")
    module = case.module()
    (x,) = case.example(3)
    _, message = _refusal(module, x.to("cuda:1"))
    assert "cuda:1" in message
    assert "cuda:0" in message
    case.assert_right(module(x), case.expected(x))


@pytest.mark.parametrize(
    ("kind", "count"), [("relu", 0), ("relu", 2), ("two", 1), ("two", 3), ("no_inputs", 1)]
)
def test_another_number_of_inputs(make, kind, count):
    """Too few or too many inputs are refused; the message says how many came and which the engine has."""
    case = make(kind)
    module = case.module()
    tensor = torch.zeros(3, 3, device=case.device)
    error, message = _refusal(module, *[tensor] * count)
    assert isinstance(error, ValueError)
    assert str(count) in message
    assert str(len(case.inputs)) in message
    assert all(repr(name) in message for name in case.inputs)
    inputs = case.example(3)
    case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.parametrize(
    ("kind", "n", "allowed"), [("relu", 33, "32"), ("profiles", 33, "32"), ("relu", 0, "1")]
)
def test_outside_every_profile(make, kind, n, allowed):
    """A dimension that no profile admits is refused; the message has the shape and the range."""
    case = make(kind)
    module = case.module()
    (x,) = case.example(3)
    error, message = _refusal(module, x[:1].expand(n, -1).contiguous())
    assert isinstance(error, ValueError)
    assert repr(case.inputs[0]) in message
    assert str(n) in message
    assert allowed in message
    case.assert_right(module(x), case.expected(x))


@pytest.mark.parametrize("shape", [(3,), (3, 8), (3, 7, 1), (1, 3, 7), (), (7, 3), (1,) * 9])
def test_another_rank_or_static_dimension(make, shape):
    """Another rank, or another size where the engine has a constant, is refused; the message has both."""
    case = make("relu")
    module = case.module()
    error, message = _refusal(module, torch.zeros(shape, device=case.device))
    assert isinstance(error, ValueError)
    assert repr(case.inputs[0]) in message
    assert "7" in message
    inputs = case.example(3)
    case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.parametrize("value", [None, 1.5, [1.0], "x", object(), (torch.zeros(1),)])
def test_not_a_tensor(make, value):
    """What is not a tensor is refused with a TypeError that names the input and the type."""
    case = make("relu")
    module = case.module()
    error, message = _refusal(module, value)
    assert isinstance(error, TypeError)
    assert repr(case.inputs[0]) in message
    assert type(value).__name__ in message


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_checks(make, mode):
    """No mode lets an input pass that another refuses."""
    case = make("relu")
    caller = Caller(case.module(), mode)
    (x,) = case.example(3)
    expected = case.expected(x)
    for bad in (x.half(), x.cpu().to("meta"), x[:, :6], x[:1].expand(40, 7).contiguous()):
        with pytest.raises(trt_rt.InputError, match=f"'{case.inputs[0]}'"):
            caller((bad,), expected)
        case.assert_right(caller((x,), expected), expected)


def test_shape_tensors_outside_their_range(make):
    """Values of a shape tensor that no profile admits are refused; the message has them and the range."""
    case = make("shape_tensor")
    module = case.module()
    x, s = case.example(3)
    for value in (0, 10, -1, 2**40):
        error, message = _refusal(module, x, torch.full_like(s, value))
        assert isinstance(error, ValueError)
        assert repr(case.inputs[1]) in message
        assert str(value) in message
        assert "9" in message
        case.assert_right(module(x, s), case.expected(x, s))


def test_outputs_of_the_callers(make):
    """An out= of another dtype, shape, device or number is refused, and names the output."""
    case = make("two")
    module = case.module()
    inputs = case.example(3)
    good, other = (torch.empty_like(tensor) for tensor in case.expected(*inputs))
    for bad, kind in (
        (other.half(), TypeError),
        (other[:2], ValueError),
        (other.to("meta"), ValueError),
        (None, TypeError),
        (other.view(torch.int32), TypeError),
        (inputs[0], ValueError),
    ):
        with pytest.raises(trt_rt.InputError, match=f"'{case.outputs[1]}'") as caught:
            module(*inputs, out=(good, bad))
        assert isinstance(caught.value, kind)
    with pytest.raises(trt_rt.InputError, match="overlaps"):
        module(*inputs, out=(good, good))
    for wrong_number in (good, (good,), (good, other, other.clone()), ()):
        with pytest.raises(trt_rt.InputError, match="2 output"):
            module(*inputs, out=wrong_number)
    case.assert_right(module(*inputs, out=(good, other)), case.expected(*inputs))
