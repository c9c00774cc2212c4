"""Arguments of a call: taken and right, or refused by an InputError that names the input."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests import isolated
from tests.odd_tensors import (
    DerivedMeaning,
    DerivedWrapper,
    Function,
    Meaning,
    Plain,
    Wrapper,
    of_kind,
    shifted,
)
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import InputError, TRTModule
from trt_rt.errors import InputTypeError, InputValueError

ACCEPTED = {
    "non-contiguous": lambda x: x.t().contiguous().t(),
    "expanded": lambda x: x[:1].expand(3, 7),
    "with gaps": lambda x: torch.cat([x, x], 1)[:, :7],
    "misaligned": lambda x: shifted(3, 7).copy_(x),
    "negative bit": lambda x: torch._neg_view(-x),
    "imaginary part of a conjugate": lambda x: torch.complex(x, -x).conj().imag,
    "requires grad": lambda x: x.clone().requires_grad_(),
    "not a leaf": lambda x: x.clone().requires_grad_() * 1,
    "parameter": lambda x: nn.Parameter(x),
    "buffer": lambda x: nn.Buffer(x),
    "subclass": lambda x: x.as_subclass(Plain),
    "misaligned subclass": lambda x: shifted(3, 7).copy_(x).as_subclass(Plain),
    "negative subclass": lambda x: torch._neg_view(-x).as_subclass(Plain),
    "subclass that allows nothing": lambda x: x.as_subclass(Function),
    "NumPy": lambda x: x.numpy(),
    "NumPy, read-only": lambda x: frozen(x.numpy().copy()),
    "NumPy, transposed": lambda x: x.t().contiguous().numpy().T,
    "NumPy, with gaps": lambda x: torch.cat([x, x], 1).numpy()[:, :7],
    "NumPy, read-only with gaps": lambda x: frozen(torch.cat([x, x], 1).numpy())[:, :7],
    "shared memory": lambda x: x.clone().share_memory_(),
    "inference": lambda x: inference_clone(x),
}


def frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


def inference_clone(x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return x.clone()


@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_arguments_that_are_taken(module: TRTModule, x: torch.Tensor, make: Any) -> None:
    expected = eager_affine(x[:1].expand(3, 7) if make is ACCEPTED["expanded"] else x)
    argument = make(x)
    for _ in range(2):
        torch.testing.assert_close(module(argument), expected)
        torch.testing.assert_close(module(x), eager_affine(x))


def test_numpy_with_negative_strides(tmp_path: Path) -> None:
    # In a process of its own: torch.from_dlpack ends the process for these.
    code = """
    module = TRTModule(plan)
    x = torch.randn(3, 7)
    backwards = x.numpy()[::-1, ::-1]
    frozen = x.numpy().copy()
    frozen.flags.writeable = False
    expected = torch.relu(x.flip(0, 1)) * 2 + 1
    for array in (backwards, frozen[::-1, ::-1]):
        assert torch.equal(module(array), expected)
        try:
            module.bind(array)
        except TRTError:
            pass
        else:
            raise AssertionError("bound to a copy")
    assert torch.equal(module(x), expected.flip(0, 1))
    """
    done = isolated.run(code, plans.affine(), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


class BrokenDLPack:
    """Says that it can, and cannot."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __dlpack__(self, **options: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class RaisingProperty:
    @property
    def __dlpack__(self) -> Any:
        raise RuntimeError("no property for you")


class AnswersEverything:
    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self


def numpy_of(x: torch.Tensor, dtype: str) -> Any:
    return x.numpy().astype(dtype)


REFUSED = {
    "None": (InputTypeError, lambda x: None),
    "int": (InputTypeError, lambda x: 3),
    "list": (InputTypeError, lambda x: x.tolist()),
    "string": (InputTypeError, lambda x: "x"),
    "class": (InputTypeError, lambda x: torch.Tensor),
    "module": (InputTypeError, lambda x: nn.Identity()),
    "float64": (InputTypeError, lambda x: x.double()),
    "float16": (InputTypeError, lambda x: x.half()),
    "int32": (InputTypeError, lambda x: x.int()),
    "complex": (InputTypeError, lambda x: torch.complex(x, x)),
    "conjugate": (InputTypeError, lambda x: torch.complex(x, x).conj()),
    "uint16": (InputTypeError, lambda x: torch.zeros(3, 7, dtype=torch.uint16)),
    "sparse": (InputTypeError, lambda x: x.to_sparse()),
    "mkldnn": (InputTypeError, lambda x: x.to_mkldnn()),
    "meta": (InputValueError, lambda x: x.to("meta")),
    "storage of nothing": (InputValueError, lambda x: without_storage(x)),
    "another shape": (InputValueError, lambda x: x[:, :6]),
    "no dimension": (InputValueError, lambda x: torch.tensor(1.0)),
    "a dimension more": (InputValueError, lambda x: x[None]),
    "nine dimensions": (InputValueError, lambda x: x.view(1, 1, 1, 1, 1, 1, 1, 3, 7)),
    "empty": (InputValueError, lambda x: x[:0]),
    "outside the profile": (InputValueError, lambda x: torch.zeros(33, 7)),
    "huge": (InputValueError, lambda x: torch.zeros(1, 7).expand(2**50, 7)),
    "huge enough to overflow bytes": (InputValueError, lambda x: torch.zeros(1, 1).expand(2**31, 2**31)),
    "uninitialised parameter": (InputError, lambda x: nn.UninitializedParameter()),
    "wrapper": (InputTypeError, lambda x: Wrapper(x)),
    "derived wrapper": (InputTypeError, lambda x: DerivedWrapper(x)),
    "memory with a meaning": (InputTypeError, lambda x: of_kind(Meaning, x)),
    "derived memory with a meaning": (InputTypeError, lambda x: of_kind(DerivedMeaning, x)),
    "NumPy float64": (InputTypeError, lambda x: numpy_of(x, "f8")),
    "NumPy of another byte order": (InputTypeError, lambda x: numpy_of(x, ">f4")),
    "NumPy objects": (InputTypeError, lambda x: numpy_of(x, "O")),
    "NumPy strings": (InputTypeError, lambda x: numpy_of(x, "U")),
    "NumPy dates": (InputTypeError, lambda x: numpy_of(x, "i8").astype("M8[s]")),
    "NumPy structures": (InputTypeError, lambda x: x.numpy().astype([("a", "f4")])),
    "NumPy scalar": (InputTypeError, lambda x: x.numpy()[0, 0]),
    "NumPy of another shape": (InputValueError, lambda x: x.numpy()[:, :3]),
    "broken __dlpack__": (InputTypeError, lambda x: BrokenDLPack(RuntimeError("broken"))),
    "__dlpack__ that gives an int": (InputTypeError, lambda x: BrokenDLPack(3)),
    "__dlpack__ that gives None": (InputTypeError, lambda x: BrokenDLPack(None)),
    "__dlpack__ that gives a tensor": (InputTypeError, lambda x: BrokenDLPack(x)),
    "__dlpack__ given already": (InputTypeError, lambda x: consumed(x)),
    "__dlpack__ that raises when looked at": (InputTypeError, lambda x: RaisingProperty()),
    "an object that has every attribute": (InputTypeError, lambda x: AnswersEverything()),
}


def without_storage(x: torch.Tensor) -> torch.Tensor:
    copy = x.clone()
    copy.untyped_storage().resize_(0)
    return copy


def consumed(x: torch.Tensor) -> BrokenDLPack:
    capsule = x.__dlpack__()
    torch.from_dlpack(BrokenDLPack(capsule))
    return BrokenDLPack(capsule)


@pytest.mark.parametrize(("error", "make"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("warm", [False, True], ids=["first call", "later call"])
def test_arguments_that_are_refused(
    module: TRTModule, x: torch.Tensor, error: Any, make: Any, warm: bool
) -> None:
    if warm:
        module(x)
    argument = make(x)
    with pytest.raises(error, match="'x'"):
        module(argument)
    with pytest.raises(error, match="'x'"):
        module.bind(argument)
    torch.testing.assert_close(module(x), eager_affine(x))


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script.* is deprecated:DeprecationWarning"
)  # torch's own, of jvp
@pytest.mark.parametrize(
    "transform",
    [
        lambda module, x: torch.vmap(module)(x.expand(2, 3, 7)),
        lambda module, x: torch.vmap(module, in_dims=2)(torch.randn(3, 7, 2)),
        lambda module, x: torch.func.grad(lambda t: module(t).sum())(x),
        lambda module, x: torch.func.jvp(module, (x,), (x,)),
        lambda module, x: torch.func.functionalize(module)(x),
        lambda module, x: torch.func.jacrev(module)(x),
    ],
    ids=["vmap", "vmap over the last", "grad", "jvp", "functionalize", "jacrev"],
)
def test_function_transforms_are_refused(module: TRTModule, x: torch.Tensor, transform: Any) -> None:
    module(x)
    with pytest.raises(InputError, match="'x'"):
        transform(module, x)
    torch.testing.assert_close(module(x), eager_affine(x))


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("contiguous", [False, True])
def test_under_fake_tensor_mode(module: TRTModule, contiguous: bool, allow: bool) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    from trt_rt import TRTError

    x = torch.randn(3, 7) if contiguous else torch.randn(7, 3).t()
    result = None
    with FakeTensorMode(allow_non_fake_inputs=allow), contextlib.suppress(TRTError):
        result = module(x)
    if result is not None:
        torch.testing.assert_close(result, eager_affine(x))
    torch.testing.assert_close(module(x), eager_affine(x))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.resize_(2, 7),
        lambda x: x.set_(torch.randn(5, 7)),
        lambda x: setattr(x, "data", torch.randn(3, 7)),
        lambda x: setattr(x, "data", torch.randn(7, 3).t()),
        lambda x: x.copy_(torch.randn(3, 7)),
        lambda x: x.requires_grad_(),
        lambda x: x.as_strided_((3, 7), (1, 3)),
        lambda x: x.swapaxes_(0, 1).as_strided_((3, 7), (7, 1)),
    ],
    ids=[
        "resize_",
        "set_",
        "data",
        "transposed data",
        "copy_",
        "requires_grad_",
        "strides",
        "back and forth",
    ],
)
def test_an_argument_that_is_changed_in_place(module: TRTModule, x: torch.Tensor, change: Any) -> None:
    module(x)
    change(x)
    torch.testing.assert_close(module(x), eager_affine(x.detach().clone()))


def test_an_argument_that_calls_the_module(two: TRTModule) -> None:
    class Recursive:
        def __dlpack__(self, **options: Any) -> Any:
            return two(a, a)[0].__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    a = torch.randn(2, 3)
    with pytest.raises(InputTypeError, match="from within its own call"):
        two(a, Recursive())
    torch.testing.assert_close(two(a, a), (a + a, a + 1))


def test_the_same_tensor_for_every_input(two: TRTModule) -> None:
    a = torch.randn(2, 3)
    torch.testing.assert_close(two(a, a), (a + a, a + 1))
