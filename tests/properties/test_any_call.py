"""Whatever a call is given: an InputError or the right answer, and the next good call is right.

What is right is known beforehand: an argument that is a dense CPU tensor (or array) of the engine's dtype and
of a shape within the profile must be taken, whatever its strides, and everything else must be refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from tests.properties.examples import examples
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import InputError, TRTError, TRTModule

LARGEST_BATCH = 32
WIDTH = 7
CPU_ALIGNMENT = 64


DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]

fitting_shapes = st.tuples(st.integers(1, LARGEST_BATCH), st.just(WIDTH))
any_shapes = (
    st.lists(st.one_of(st.just(WIDTH), st.integers(0, 9), st.sampled_from([33, 64])), max_size=9)
    .map(tuple)
    .filter(lambda shape: np.prod(shape, dtype=np.int64) < 2**16)
)
shapes = st.one_of(fitting_shapes, fitting_shapes, any_shapes)


def fits(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and 1 <= shape[0] <= LARGEST_BATCH and shape[1] == WIDTH


def values(count: int) -> torch.Tensor:
    """Different everywhere, of both signs, the same every time."""
    return torch.arange(count, dtype=torch.float32).mul_(7).remainder_(13).sub_(6)


@st.composite
def strided(draw: st.DrawFn, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A view with strides and an offset that no ordinary code would make."""
    shape = draw(shapes)
    strides = [draw(st.integers(0, 9)) for _ in shape]
    offset = draw(st.integers(0, 70))
    reach = offset + 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True) if size)
    assume(reach < 2**16)
    return values(reach).to(dtype).as_strided(shape, strides, offset)


@st.composite
def viewed(draw: st.DrawFn, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What slicing, transposing and expanding make of an ordinary tensor."""
    shape = draw(shapes)
    tensor = values(int(np.prod(shape, dtype=np.int64))).to(dtype).view(shape)
    for change in draw(
        st.lists(st.sampled_from(["t", "flip", "slice", "expand", "wide", "clone"]), max_size=3)
    ):
        if change == "t" and tensor.dim() >= 2:
            tensor = tensor.transpose(0, 1).contiguous().transpose(0, 1)
        elif change == "flip" and tensor.dim() and dtype not in (torch.float8_e4m3fn, torch.float8_e5m2):
            tensor = tensor.flip(0)
        elif change == "slice" and tensor.dim():
            tensor = torch.cat([tensor[:1], tensor])[draw(st.integers(0, 1)) :]
        elif change == "expand" and tensor.dim() and tensor.shape[0]:
            tensor = tensor[:1].expand(tensor.shape)
        elif change == "wide" and tensor.dim():
            tensor = torch.cat([tensor, tensor], -1)[..., : tensor.shape[-1]]
        elif change == "clone":
            tensor = tensor.clone()
    return tensor


class Plain(torch.Tensor):
    pass


def negated(tensor: torch.Tensor) -> torch.Tensor:
    return torch._neg_view(tensor) if tensor.is_floating_point() and tensor.itemsize > 1 else tensor


WRAPPINGS = {
    "nothing": lambda tensor: tensor,
    "negative": negated,
    "grad": lambda tensor: tensor.requires_grad_() if tensor.is_floating_point() else tensor,
    "parameter": lambda tensor: nn.Parameter(tensor, requires_grad=False),
    "subclass": lambda tensor: tensor.as_subclass(Plain),
    "negative subclass": lambda tensor: negated(tensor).as_subclass(Plain),
    "detached": lambda tensor: tensor.detach(),
}

tensors = st.one_of(
    strided(),
    viewed(),
    st.sampled_from(DTYPES).flatmap(strided),
    st.sampled_from(DTYPES).flatmap(viewed),
)


@pytest.fixture(scope="module")
def module() -> TRTModule:
    return TRTModule(plans.affine())


@pytest.fixture(scope="module")
def two() -> TRTModule:
    return TRTModule(plans.two())


GOOD = values(3 * WIDTH).view(3, WIDTH)


def check_good_call(module: TRTModule) -> None:
    torch.testing.assert_close(module(GOOD), eager_affine(GOOD), rtol=0, atol=0)


def check(module: TRTModule, argument: Any, expected: torch.Tensor | None) -> None:
    """`expected` is None for what must be refused."""
    if expected is None:
        with pytest.raises(InputError, match="'x'"):
            module(argument)
    else:
        torch.testing.assert_close(module(argument), eager_affine(expected), rtol=0, atol=0)
    check_good_call(module)


@pytest.mark.parametrize("pre_allocated", [False, True])
@given(tensor=tensors, wrapping=st.sampled_from(list(WRAPPINGS)))
@examples(300)
def test_tensors(module: TRTModule, pre_allocated: bool, tensor: torch.Tensor, wrapping: str) -> None:
    module.set_pre_allocated_outputs(pre_allocated)
    wrapped = WRAPPINGS[wrapping](tensor)
    good = fits(wrapped.shape) and wrapped.dtype is torch.float32
    plain = torch.Tensor.clone(wrapped.detach().as_subclass(torch.Tensor)) if good else None
    check(module, wrapped, plain)


@given(
    # Nothing in between: if such a tensor is copied by mistake, then at once there is no memory for it.
    shape=st.lists(
        st.one_of(st.integers(2**40, 2**62), st.just(WIDTH), st.integers(0, 3)), min_size=1, max_size=9
    ).map(tuple),
    dtype=st.sampled_from([torch.float32, torch.int8]),
)
@examples(100)
def test_huge_shapes(module: TRTModule, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    try:
        tensor = torch.ones((1,) * len(shape), dtype=dtype).expand(shape)
        tensor.numel()
    except RuntimeError:  # more than PyTorch can count
        assume(False)
    check(module, tensor, tensor.clone() if fits(shape) and dtype is torch.float32 else None)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    dtype = draw(
        st.sampled_from(["f4", "f4", "f4", "f8", "f2", "i4", "u2", "c8", "?", ">f4", "O", "S3", "M8[s]"])
    )
    shape = draw(shapes.filter(lambda shape: len(shape) <= 8))
    array = np.asarray(values(int(np.prod(shape, dtype=np.int64))).numpy().reshape(shape))
    array = array.astype("i8").astype(dtype) if dtype.startswith("M8") else array.astype(dtype)
    if array.ndim >= 2 and draw(st.booleans()):
        array = np.asfortranarray(array)
    if array.ndim and array.shape[0] and draw(st.booleans()):
        array = np.concatenate([array, array])[: array.shape[0]]
    if draw(st.booleans()):
        array.flags.writeable = False
    return array


@given(array=arrays())
@examples(150)
def test_numpy_arrays(module: TRTModule, array: np.ndarray[Any, Any]) -> None:
    good = fits(array.shape) and array.dtype == np.dtype("f4")
    check(module, array, torch.from_numpy(array.copy()) if good else None)


class Broken:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def __dlpack_device__(self) -> Any:
        return self.answer


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=9),
    st.lists(st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from(
        [torch.float32, torch.device("cpu"), torch.Size([3, 7]), GOOD.untyped_storage(), object, ...]
    ),
    st.sampled_from([ValueError("v"), None, 3, (1, 0), (1,), (99, 0), (-1, -1), "s", GOOD]).map(Broken),
    st.just(GOOD).map(lambda tensor: tensor.to("meta")),
    st.just(GOOD).map(lambda tensor: tensor.to_sparse()),
    st.just(GOOD).map(lambda tensor: tensor.__dlpack__()),
)


@given(argument=junk)
@examples(150)
def test_what_is_no_tensor(module: TRTModule, argument: Any) -> None:
    check(module, argument, None)


@given(
    args=st.lists(st.one_of(st.just(GOOD[:, :3]), junk), max_size=4),
    kwargs=st.dictionaries(
        st.sampled_from(["a", "b", "c", "inputs", "sum", "", "a b"]),
        st.one_of(st.just(GOOD[:, :3]), junk),
        max_size=3,
    ),
)
@examples(200)
def test_counts_and_keywords(two: TRTModule, args: list[Any], kwargs: dict[str, Any]) -> None:
    given_names = ["a", "b"][: len(args)] + list(kwargs)
    good = GOOD[:, :3]
    if (
        len(args) <= 2
        and sorted(given_names) == ["a", "b"]
        and all(v is good for v in [*args, *kwargs.values()])
    ):
        torch.testing.assert_close(two(*args, **kwargs), (good + good, good + 1))
    elif len(args) + len(kwargs) != 2 or sorted(given_names) != ["a", "b"]:
        for call in (two, two.bind):
            with pytest.raises(InputError):
                call(*args, **kwargs)
    else:
        by_name = {**dict(zip("ab", args, strict=False)), **kwargs}
        if all(
            isinstance(value, torch.Tensor) and value.shape == (3, 3) and value.is_cpu
            for value in by_name.values()
        ):
            a, b = (torch.Tensor.to_dense(by_name[name]) for name in "ab")
            try:
                result = two(*args, **kwargs)
            except InputError:
                pass
            else:
                torch.testing.assert_close(result, (a + b, b + 1))
        else:
            with pytest.raises(InputError):
                two(*args, **kwargs)
    torch.testing.assert_close(two(good, good), (good + good, good + 1))


@given(first=st.one_of(strided(), viewed()), second=st.one_of(strided(), viewed()), same=st.booleans())
@examples(150)
def test_two_inputs(two: TRTModule, first: torch.Tensor, second: torch.Tensor, same: bool) -> None:
    a = first[..., :3] if first.dim() else first
    b = a if same else (second[..., :3] if second.dim() else second)
    ok = all(t.dim() == 2 and t.shape[1] == 3 and 1 <= t.shape[0] <= LARGEST_BATCH for t in (a, b))
    if ok and a.shape[0] == b.shape[0]:
        torch.testing.assert_close(two(a, b), (a + b, b + 1), rtol=0, atol=0)
    elif ok:  # each fits its profile, but not the other
        with pytest.raises(TRTError):
            two(a, b)
    else:
        with pytest.raises(InputError):
            two(a, b)
    good = GOOD[:, :3]
    torch.testing.assert_close(two(good, good), (good + good, good + 1))


@given(
    out=st.one_of(strided(), viewed(), tensors, junk),
    wrapping=st.sampled_from(["nothing", "negative", "subclass"]),
)
@examples(300)
def test_out(module: TRTModule, out: Any, wrapping: str) -> None:
    x = values(3 * WIDTH).view(3, WIDTH)
    if isinstance(out, torch.Tensor) and out.is_cpu and out.layout is torch.strided:
        out = WRAPPINGS[wrapping](out.detach())
        good = (
            out.dtype is torch.float32
            and out.shape == x.shape
            and out.is_contiguous()
            and out.data_ptr() % CPU_ALIGNMENT == 0
            and not out.is_neg()
        )
    else:
        good = out is None
    if good:
        result = module(x, out=out)
        assert out is None or result is out
        torch.testing.assert_close(result.as_subclass(torch.Tensor), eager_affine(x), rtol=0, atol=0)
    else:
        with pytest.raises(InputError):
            module(x, out=out)
    torch.testing.assert_close(x, values(3 * WIDTH).view(3, WIDTH))
    check_good_call(module)


@given(
    starts=st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12)),
    rows=st.integers(1, 12),
)
@examples(200)
def test_overlapping_memory(two: TRTModule, starts: tuple[int, ...], rows: int) -> None:
    # Four tensors in one allocation, each at a multiple of the alignment.
    memory = values(16 * 30)
    size = rows * 3
    a, b, total, increment = (memory[16 * start : 16 * start + size].view(rows, 3) for start in starts)
    expected = (a + b, b + 1)
    before = memory.clone()

    def apart(one: int, other: int) -> bool:
        return abs(starts[one] - starts[other]) * 16 >= size

    if all(apart(output, other) for output in (2, 3) for other in range(4) if other != output):
        torch.testing.assert_close(two(a, b, out=(total, increment)), expected, rtol=0, atol=0)
    else:
        with pytest.raises(InputError, match="overlaps"):
            two(a, b, out=(total, increment))
        torch.testing.assert_close(memory, before)


@given(length=st.one_of(st.integers(-3, 40), st.integers(-(2**63), 2**63 - 1)), layout=st.integers(0, 3))
@examples(150)
def test_shape_tensor_values(length: int, layout: int) -> None:
    module = shape_module()
    x = values(4)
    tensor = torch.tensor([length])
    tensor = [
        tensor,
        torch.tensor([0, length])[1:],
        torch.tensor([[length, 0]]).t()[:1, 0],
        torch.tensor([length, 0])[::2],
    ][layout]
    if 1 <= length <= 20:
        torch.testing.assert_close(module(x, tensor), x[torch.arange(length) % 4], rtol=0, atol=0)
    else:
        with pytest.raises(InputError, match="'length'"):
            module(x, tensor)
    torch.testing.assert_close(module(x, torch.tensor([6])), x[torch.arange(6) % 4], rtol=0, atol=0)


_shape_module: list[TRTModule] = []


def shape_module() -> TRTModule:
    if not _shape_module:
        _shape_module.append(TRTModule(plans.shape_tensor()))
    return _shape_module[0]


@given(data=st.data())
@examples(100)
def test_data_dependent_outputs(data: st.DataObject) -> None:
    module = nonzero_module()
    rows = data.draw(st.integers(0, 32))
    ones = data.draw(st.lists(st.booleans(), min_size=rows * 5, max_size=rows * 5))
    x = torch.tensor(ones, dtype=torch.float32).view(rows, 5)
    indices, twice = module(x)
    torch.testing.assert_close((indices, twice), (torch.nonzero(x), x * 2), rtol=0, atol=0)
    assert indices.untyped_storage().nbytes() == indices.nbytes


_nonzero_module: list[TRTModule] = []


def nonzero_module() -> TRTModule:
    if not _nonzero_module:
        _nonzero_module.append(TRTModule(plans.nonzero()))
    return _nonzero_module[0]
