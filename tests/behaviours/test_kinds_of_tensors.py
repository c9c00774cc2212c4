"""Whatever kind of tensor comes is right or refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import trt_rt
from tests.behaviours.child import assert_ends_quietly
from tests.behaviours.modes import MODES, Caller

pytestmark = pytest.mark.behaviour(17)


class _Subclass(torch.Tensor):
    """Has memory of its own."""


class _Wrapper(torch.Tensor):
    """Holds another tensor and has no memory of its own."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=inner.device, strides=inner.stride()
        )

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise NotImplementedError(f"{function} on a wrapper")


_DTYPES = ["float32", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool", "float8_e4m3fn"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", _DTYPES)
def test_every_dtype(make, dtype, mode):
    """Every dtype that TensorRT's and PyTorch's tensors share passes bit by bit."""
    case = make(f"identity_{dtype}")
    caller = Caller(case.module(), mode)
    for n in (3, 1, 32):
        (x,) = case.example(n)
        result = caller((x,), (x,))
        case.assert_right(result, (x,))
        assert torch.equal(result.view(torch.uint8), x.view(torch.uint8))


@pytest.mark.parametrize("mode", ["fresh", "pre_allocated", "bound"])
def test_tensors_that_require_grad(make, mode):
    """A tensor that requires grad is read as it is; the result has no history and does not require grad."""
    case = make("two")
    caller = Caller(case.module(), mode)
    a, b = (tensor.requires_grad_() for tensor in case.example(3))
    expected = case.expected(a, b)
    for inputs in ((a, b), (a * 2, b), (a * 2 + 1, b.t().contiguous().t())):
        if mode == "bound":
            inputs = tuple(tensor.contiguous() for tensor in inputs)
        expected = case.expected(*inputs)
        result = caller(inputs, expected)
        case.assert_right(result, expected)
        assert not any(output.requires_grad or output.grad_fn for output in result)


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda x: torch._neg_view(x), id="neg_view"),
        pytest.param(lambda x: torch.complex(x, x + 1).conj().imag, id="imag-of-conj"),
        pytest.param(lambda x: torch._neg_view(x.t().contiguous()).t(), id="transposed"),
    ],
)
def test_negative_views(make, view):
    """A view whose elements are still to be negated is right, before and after plain tensors of its shape."""
    case = make("relu")
    module = case.module()
    for _ in range(3):
        (x,) = case.example(3)
        case.assert_right(module(x), case.expected(x))
        negative = view(x)
        assert negative.is_neg()
        case.assert_right(module(negative), case.expected(negative.resolve_neg()))


def test_a_negative_view_where_the_last_tensor_was(make):
    """A view to be negated is noticed where the last call's tensor lay, as object or in memory."""
    case = make("relu")
    module = case.module()
    for _ in range(50):
        (x,) = case.example(3)
        case.assert_right(module(x), case.expected(x))
        del x
        negative = torch._neg_view(case.example(3)[0])
        case.assert_right(module(negative), case.expected(negative.resolve_neg()))


def test_conjugate_views_are_refused(make):
    """TensorRT has no complex numbers: a complex tensor, conjugate or not, is refused with its dtype."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(3)
    for z in (torch.complex(x, x), torch.complex(x, x).conj()):
        with pytest.raises(trt_rt.InputError, match="complex64"):
            module(z)


_WITH_MEMORY = pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(torch.nn.Parameter, id="parameter"),
        pytest.param(torch.nn.Buffer, id="buffer"),
        pytest.param(lambda x: x.as_subclass(_Subclass), id="subclass"),
    ],
)


@_WITH_MEMORY
@pytest.mark.parametrize("mode", ["fresh", "pre_allocated"])
def test_subclasses_with_memory(make, wrap, mode):
    """Parameters, buffers and subclasses over ordinary memory are right, and results are plain tensors."""
    case = make("relu")
    caller = Caller(case.module(), mode)
    for n in (3, 3, 8):
        (x,) = case.example(n)
        result = caller((wrap(x),), case.expected(x))
        assert type(result) is torch.Tensor
        case.assert_right(result, case.expected(x))


@_WITH_MEMORY
def test_subclasses_in_a_bound_call(make, wrap):
    """A bound call of such a tensor is refused, or sees what is written into it later."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(3)
    try:
        bound = module.bind(wrap(x))
    except trt_rt.InputError:
        return
    for _ in range(2):
        x.copy_(torch.randn_like(x))
        case.assert_right(bound(), case.expected(x))


def _assert_refused(case, module, value):
    with pytest.raises(trt_rt.InputError, match=f"'{case.inputs[0]}'"):
        module(value)
    (x,) = case.example(3)
    case.assert_right(module(x), case.expected(x))


def test_tensors_without_memory_are_refused(make):
    """Wrappers, meta, sparse, opaque, zero and freed tensors are refused; the module stays usable."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls some of these experimental
        values = [
            _Wrapper(x),
            x.to("meta"),
            x.to_sparse(),
            x.to_sparse_csr(),
            torch._efficientzerotensor(3, 7, device=case.device),
            torch.nested.nested_tensor([x[0], x[1]]),
            torch.nested.nested_tensor([x[0], x[1]], layout=torch.jagged),
        ]
    freed = x.clone()
    module(freed)
    freed.untyped_storage().resize_(0)
    for value in (*values, freed):
        _assert_refused(case, module, value)


@pytest.mark.behaviour(13, 17)
def test_a_fake_tensor(make):
    """What stands for a tensor in a graph that PyTorch traces gives what stands for the results."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(3)
    (wanted,) = case.expected(x)
    mode = FakeTensorMode()
    fake = mode.from_tensor(x)
    if not isinstance(module.engine.backend, str):
        with mode, pytest.raises(trt_rt.BackendError, match="which only this process knows"):
            module(fake)  # the graph may be saved
        case.assert_right(module(x), case.expected(x))
        return
    with mode:
        inside = module(fake)
    for result in (inside, module(fake)):
        assert isinstance(result, FakeTensor)
        assert (result.shape, result.dtype, result.device) == (wanted.shape, wanted.dtype, wanted.device)
    for refused in (lambda: module.bind(fake), lambda: module(fake, out=wanted)):
        with pytest.raises(trt_rt.InputError):
            refused()
    case.assert_right(module(x), case.expected(x))


@pytest.mark.parametrize(
    "transform",
    [
        pytest.param(lambda call, x: torch.func.vmap(lambda row: call(row[None]))(x), id="vmap"),
        pytest.param(lambda call, x: torch.func.grad(lambda t: call(t).sum())(x), id="grad"),
        pytest.param(lambda call, x: torch.func.jvp(call, (x,), (x,)), id="jvp"),
        pytest.param(lambda call, x: torch.func.functionalize(call)(x), id="functionalize"),
    ],
)
def test_function_transforms_are_refused(make, transform):
    """Tensors of torch.func have no memory of their own, though they look like ordinary ones."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(3)
    module(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.func.jvp imports deprecated parts of PyTorch
        with pytest.raises(trt_rt.InputError, match=f"'{case.inputs[0]}'"):
            transform(module, x)
    case.assert_right(module(x), case.expected(x))


def test_arrays_of_numpy(make):
    """NumPy arrays in host memory are right, in any layout and read-only too, or refused."""
    case = make("relu")
    if case.device.type != "cpu":
        pytest.skip("NumPy's arrays lie in host memory, and this engine's tensors on a GPU")
    module = case.module()
    x = case.example(6)[0].numpy()
    read_only = x.copy()
    read_only.setflags(write=False)
    for array in (x, x[::2], np.asfortranarray(x), read_only, read_only[1:]):
        case.assert_right(module(array), case.expected(torch.tensor(array.copy())))
    for bad in (x.astype(np.float64), x.astype(x.dtype.newbyteorder()), x.astype(object), np.array(["x"])):
        with pytest.raises(trt_rt.InputError, match=f"'{case.inputs[0]}'"):
            module(bad)
        case.assert_right(module(x), case.expected(torch.tensor(x)))


def test_reversed_arrays_of_numpy(make, tmp_path):
    """An array with negative strides, which no tensor can have, is right or refused; the process goes on."""
    case = make("relu")
    if case.device.type != "cpu":
        pytest.skip("NumPy's arrays lie in host memory, and this engine's tensors on a GPU")
    assert_ends_quietly(
        case,
        tmp_path,
        """
module = trt_rt.TRTModule(new_engine())
x = inputs[0].numpy()
for array in (x[::-1], x[:, ::-1], x[::-1, ::-1]):
    try:
        result = module(array)
    except trt_rt.InputError as error:
        assert "'x'" in str(error)
    else:
        assert torch.equal(result, module(torch.tensor(array.copy())))
""",
    )


class _Passing(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "surrounding",
    [
        pytest.param(torch.no_grad, id="no_grad"),
        pytest.param(torch.inference_mode, id="inference_mode"),
        pytest.param(torch.enable_grad, id="enable_grad"),
        pytest.param(lambda: torch.autocast("cpu"), id="autocast-cpu"),
        pytest.param(lambda: torch.device("meta"), id="default-device"),
        pytest.param(_Passing, id="dispatch-mode"),
    ],
)
def test_whatever_the_caller_has_switched_on(make, mode, surrounding):
    """A call is right, with outputs of the engine's dtypes and device, under every mode of PyTorch."""
    case = make("relu")
    caller = Caller(case.module(), mode)
    for transposed in (False, True):
        for n in (3, 5):
            (x,) = case.example(n)
            if transposed and mode != "bound":
                x = x.t().contiguous().t()
            expected = case.expected(x)
            with surrounding():
                result = caller((x,), expected)
            case.assert_right(result, expected)


def test_another_default_dtype(make):
    """PyTorch's default dtype does not reach the outputs, data-dependent ones included."""
    for kind in ("relu", "nonzero"):
        case = make(kind)
        module = case.module()
        inputs = case.example(3)
        expected = case.expected(*inputs)
        torch.set_default_dtype(torch.float64)
        try:
            result = module(*inputs)
        finally:
            torch.set_default_dtype(torch.float32)
        case.assert_right(result, expected)
