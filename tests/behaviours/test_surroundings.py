"""What surrounds a call never changes a result, and leaves nothing behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import trt_rt
from trt_rt.runtime import (
    enable_cudagraphs,
    enable_output_allocator,
    enable_pre_allocated_outputs,
    use_dynamically_allocated_resources,
)

pytestmark = pytest.mark.behaviour(39)

KINDS = ("relu", "two", "shape_tensor", "nonzero", "aliased", "profiles", "slow", "streaming", "no_inputs")


class Seen(TorchDispatchMode):
    """Gives every operator a result of zeros."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return torch.zeros_like(result) if isinstance(result, torch.Tensor) else result


@contextmanager
def another_default_dtype() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def another_default_device() -> Iterator[None]:
    with torch.device("meta"):
        yield


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Fills memory that is not initialised, which must be no memory that is in use."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "FakeTensorMode": FakeTensorMode,
    "a dispatch mode": Seen,
    "another default dtype": another_default_dtype,
    "another default device": another_default_device,
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "deterministic algorithms": deterministic_algorithms,
}
MODES: dict[str, Callable[[trt_rt.TRTModule], AbstractContextManager[Any]]] = {
    "plain": lambda module: nullcontext(module),
    "pre_allocated": enable_pre_allocated_outputs,
    "dynamic_resources": use_dynamically_allocated_resources,
}


def copies(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.clone() for tensor in inputs)


@pytest.mark.parametrize("calls_before", [0, 1], ids=["first", "later"])
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_the_same_in_it_and_after_it(make, kind, surroundings, calls_before):
    """A call is right within, and the next one is right without."""
    _check_results(make, kind, surroundings, "plain", calls_before)


@pytest.mark.parametrize("mode", ["pre_allocated", "dynamic_resources"])
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_memory_that_is_kept_is_memory(make, surroundings, mode):
    """What is allocated within, and kept for later calls, is as good as any other."""
    _check_results(make, "two", surroundings, mode, calls_before=0)


def _check_results(make: Any, kind: str, surroundings: str, mode: str, calls_before: int) -> None:
    case = make(kind)
    module = case.module()
    inputs, other = case.example(2), case.example(3)
    expected, expected_after = case.expected(*inputs), case.expected(*other)
    within, repeated = copies(inputs), copies(inputs)
    with MODES[mode](module):
        for _ in range(calls_before):
            module(*copies(other))
        with SURROUNDINGS[surroundings]():
            result = module(*within)
        case.assert_right(_plain(result), expected)
        case.assert_right(_plain(module(*repeated)), expected)
        case.assert_right(_plain(module(*copies(other))), expected_after)


def _plain(result: Any) -> Any:
    """Out of inference mode its tensors can be looked at, but not compared in every way."""
    return tuple(t.clone() for t in result) if isinstance(result, tuple) else result.clone()


@pytest.mark.parametrize("control", [enable_cudagraphs, enable_output_allocator], ids=lambda f: f.__name__)
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_results_are_the_same_under_other_controls(make, surroundings, control):
    """The same where a graph is captured, or TensorRT allocates, within."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    with control(module) as called:
        for _ in range(2):
            with SURROUNDINGS[surroundings]():
                result = called(x)
            case.assert_right(_plain(result), case.expected(x))
            case.assert_right(_plain(called(x)), case.expected(x))


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_an_argument_that_must_be_copied(make, surroundings):
    """A strided input is copied as it is, whatever surrounds the call."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(4)
    strided = torch.cat([x, x], dim=1)[:, : x.shape[1]]
    with SURROUNDINGS[surroundings]():
        result = module(strided)
    case.assert_right(_plain(result), case.expected(x))


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("kind", ["relu", "streaming", "no_inputs", "slow"])
def test_loading(make, kind, surroundings):
    """An engine that is loaded within is as good as any other."""
    case = make(kind)
    inputs = case.example(2)
    with SURROUNDINGS[surroundings]():
        module = case.module()
    case.assert_right(module(*inputs), case.expected(*inputs))
    with SURROUNDINGS[surroundings]():
        module = case.module()
        result = module(*inputs)
    case.assert_right(_plain(result), case.expected(*inputs))


def _grad(function: Callable[[torch.Tensor], torch.Tensor], w: torch.Tensor) -> torch.Tensor:
    return torch.func.grad(function)(w)


def _jvp(function: Callable[[torch.Tensor], torch.Tensor], w: torch.Tensor) -> torch.Tensor:
    return torch.func.jvp(function, (w,), (torch.ones_like(w),))[1]


def _vjp(function: Callable[[torch.Tensor], torch.Tensor], w: torch.Tensor) -> torch.Tensor:
    result, pull = torch.func.vjp(function, w)
    return pull(torch.ones_like(result))[0]


def _nested(function: Callable[[torch.Tensor], torch.Tensor], w: torch.Tensor) -> torch.Tensor:
    return torch.func.grad(lambda v: torch.func.vmap(function)(v.expand(2)).sum() / 2)(w)


def _functionalized(function: Callable[[torch.Tensor], torch.Tensor], w: torch.Tensor) -> torch.Tensor:
    return torch.func.functionalize(torch.func.grad(function))(w)


# PyTorch's own, of jvp.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("calls_before", [0, 1], ids=["first", "later"])
@pytest.mark.parametrize("transform", [_grad, _jvp, _vjp, _nested, _functionalized])
def test_function_transforms_around_plain_tensors(make, transform, calls_before):
    """What an engine returns for plain tensors is a constant to a transform around the call."""
    _check_transform(make, "two", "plain", transform, calls_before)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_around_every_kind_of_call(make, kind, mode):
    """The same for every kind of engine, in every mode, from the first call on."""
    _check_transform(make, kind, mode, _grad, calls_before=0)


def _check_transform(
    make: Any, kind: str, mode: str, transform: Callable[..., torch.Tensor], calls_before: int
) -> None:
    case = make(kind)
    module = case.module()
    inputs = case.example(2)
    expected = case.expected(*inputs)
    total = expected[-1].double().sum()

    def scaled(w: torch.Tensor) -> torch.Tensor:
        result = module(*copies_of_plain)
        result = result[-1] if isinstance(result, tuple) else result
        return w * result.double().sum()

    with MODES[mode](module):
        for _ in range(calls_before):
            module(*copies(inputs))
        copies_of_plain = copies(inputs)
        w = torch.ones((), device=case.device, dtype=torch.float64)
        torch.testing.assert_close(transform(scaled, w), total)
        case.assert_right(module(*copies(inputs)), expected)


def test_a_wrapped_argument_is_refused(make):
    """A tensor that a transform has wrapped has no memory of its own: refused, with words that help."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    with pytest.raises(trt_rt.InputError, match="'x'"):
        torch.func.grad(lambda v: module(v).sum())(x)
    case.assert_right(module(x), case.expected(x))


@contextmanager
def frames_seen() -> Iterator[list[str]]:
    """The files of all functions that Dynamo is asked to compile meanwhile."""
    from torch._dynamo import convert_frame

    files: list[str] = []
    original = convert_frame.CatchErrorsWrapper.__call__

    def noting(self: Any, frame: Any, *rest: Any) -> Any:
        files.append(frame.f_code.co_filename)
        return original(self, frame, *rest)

    convert_frame.CatchErrorsWrapper.__call__ = noting  # type: ignore[method-assign]
    try:
        yield files
    finally:
        convert_frame.CatchErrorsWrapper.__call__ = original  # type: ignore[method-assign]


@pytest.fixture
def graphs() -> Iterator[list[torch.fx.GraphModule]]:
    """What Dynamo has compiled, through a backend that runs it as it is."""
    torch._dynamo.reset()
    yield []
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [*[(kind, "plain") for kind in KINDS], ("two", "pre_allocated"), ("two", "dynamic_resources")],
)
def test_compiled_around_a_module(make, kind, mode, graphs):
    """torch.compile sees one opaque call: no function of ours, no operator of an engine, the same results."""
    case = make(kind)
    module = case.module()

    def keep(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def doubled(*inputs: torch.Tensor) -> Any:
        result = module(*inputs)
        result = result if isinstance(result, tuple) else (result,)
        return tuple(output * 2 for output in result)

    compiled = torch.compile(doubled, backend=keep, dynamic=True)
    whole = torch.compile(module, backend=keep)
    with MODES[mode](module), frames_seen() as files, warnings.catch_warnings():
        # Dynamo's own, once: that it cannot look into the call.
        warnings.filterwarnings("ignore", message="Dynamo does not know how to trace the builtin")
        for n in (2, 3, 4, 2):
            inputs = case.example(n)
            expected = case.expected(*inputs)
            results = compiled(*copies(inputs))
            for result, wanted in zip(results, expected, strict=True):
                torch.testing.assert_close(result, wanted * 2)
            case.assert_right(whole(*copies(inputs)), expected)
    ours = sorted({file for file in files if "/trt_rt/" in file})
    assert not ours
    assert len(graphs) <= 2, "the doubling alone, for one batch and for any"
