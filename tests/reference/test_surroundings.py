"""Modes, transforms, compilers and the default dtype around a call change nothing, and stay as they were."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.patience import SECONDS_UNTIL_DEADLOCK
from tests.reference import plans
from tests.reference.harness import RecordingAllocator, RecordingLogger, Session
from trt_rt import reference as trt


class RecordingMode(TorchDispatchMode):
    """Remembers the operators that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def no_mode() -> Iterator[None]:
    yield


SURROUNDINGS: dict[str, Callable[[], Any]] = {
    "nothing": no_mode,
    "fake tensors": FakeTensorMode,
    "a dispatch mode": RecordingMode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "the meta device": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "double precision": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
}


class Integers(torch.nn.Module):
    """Everything here depends on PyTorch's default dtype."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            x / 3,
            x * 0.1,
            x.sqrt(),
            x < 1000.5,
            torch.where(x > 2, 1.0, 0.1),
            torch.where(x > 2, x, 0.1),
            torch.softmax(x.to(torch.get_default_dtype()), 0),
            torch.arange(4) * 0.1 + torch.linspace(0, 1, 4),
            x.to(torch.int32).item() / 3 * x if x.numel() == 1 else torch.full((2,), 0.1),
        )


@pytest.mark.parametrize("surrounding", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_an_engine_of_convolutions(surrounding: Callable[[], Any]) -> None:
    x, plan = torch.randn(2, 1, 8, 8), plans.streaming()
    with torch.no_grad():
        expected = plans.convolutions()(x)
    result = torch.zeros_like(expected)
    mode = surrounding()
    with mode:
        logger = RecordingLogger()
        engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
        assert engine is not None, logger.errors
        context = engine.create_execution_context()
        context.set_input_shape("x", (2, 1, 8, 8))
        context.set_tensor_address("x", x.data_ptr())
        assert tuple(context.get_tensor_shape("output0")) == tuple(expected.shape)
        context.set_tensor_address("output0", result.data_ptr())
        assert context.execute_async_v3(0), logger.errors
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    if isinstance(mode, RecordingMode):
        assert mode.seen == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_default_dtype_at_run_time(dtype: torch.dtype) -> None:
    x = torch.tensor([0, 1, 1000, 1001, 2**20 + 1])
    module = Integers()
    expected = module(x)
    plan = trt.build(module, (x,))
    session = Session(plan)
    with default_dtype(dtype):
        again = session.run(x)
        loaded_there = Session(plan).run(x)
    for first, second, reference in zip(again, loaded_there, expected, strict=True):
        torch.testing.assert_close(first, reference, rtol=0, atol=0)
        torch.testing.assert_close(second, reference, rtol=0, atol=0)


def test_a_network_that_was_built_with_another_default_dtype() -> None:
    x = torch.tensor([1, 2, 3])
    with default_dtype(torch.float16):
        expected = (x / 3, x < 1.5)
        plan = trt.build(Thirds(), (x,))
    for result, reference in zip(Session(plan).run(x), expected, strict=True):
        torch.testing.assert_close(result, reference, rtol=0, atol=0)


class Thirds(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x / 3, x < 1.5


# PyTorch warns of its own use of torch.jit when it imports its rules for jvp.
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
@pytest.mark.parametrize("make", [plans.two, plans.nonzero, plans.shape_tensor])
def test_transforms_of_torch_func(make: Callable[[], bytes]) -> None:
    session = Session(make())
    if session.inputs == ["x", "length"]:
        tensors = (torch.randn(4), torch.tensor([3]))
    elif len(session.inputs) == 2:
        tensors = (torch.randn(2, 3), torch.randn(2, 3))
    else:
        tensors = (torch.randn(2, 5).relu(),)
    expected = [result.clone() for result in session.run(*tensors)]

    def call(y: torch.Tensor) -> torch.Tensor:
        assert session.enqueue(), session.logger.errors
        return (y * y).sum()

    y = torch.ones(3)
    assert torch.equal(torch.func.grad(call)(y), 2 * y)
    assert torch.equal(torch.func.jvp(call, (y,), (y,))[1], torch.tensor(6.0))
    assert torch.equal(torch.func.vmap(call)(torch.ones(2, 3)), torch.tensor([3.0, 3.0]))
    for name, reference in zip(session.outputs, expected, strict=True):
        torch.testing.assert_close(session.result(name), reference, rtol=0, atol=0)


def test_torch_compile_does_not_look_into_a_run() -> None:
    session = Session(plans.streaming())
    x = torch.randn(2, 1, 8, 8)
    (expected,) = session.run(x)
    expected = expected.clone()
    session.bound["output0"].zero_()
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, example: Any) -> Callable[..., Any]:
        graphs.append(graph.code)
        return graph.forward

    def program(y: torch.Tensor) -> torch.Tensor:
        y = y * 2
        session.context.execute_async_v3(0)
        return y + 1

    torch._dynamo.reset()
    compiled = torch.compile(program, backend=backend)
    for _ in range(2):
        assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 3.0))
        torch.testing.assert_close(session.bound["output0"], expected, rtol=0, atol=0)
        session.bound["output0"].zero_()
    assert len(graphs) == 2, graphs
    assert "conv" not in "".join(graphs)
    torch._dynamo.reset()


def interrupted(call: Callable[[], object], *, number: int) -> bool:
    """Run `call`, and raise KeyboardInterrupt where Python would for the signal: when a function has begun or
    ended.

    `number` says at the how manieth of these places. False if there are not so many.
    """
    left = number

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal left
        if event not in ("call", "return", "c_return"):
            return
        left -= 1
        if left < 0:
            sys.setprofile(None)
            raise KeyboardInterrupt

    # Python drops what is raised in a finalizer, so nothing that other tests have left is collected here.
    was_enabled = gc.isenabled()
    gc.disable()
    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
        if was_enabled:
            gc.enable()
    return False


@pytest.mark.parametrize("make", [plans.affine, plans.checked])
def test_an_interrupt_anywhere_in_a_run(make: Callable[[], bytes]) -> None:
    session = Session(make())
    x = torch.rand(4, 7) if make is plans.affine else torch.rand(4)
    (expected,) = session.run(x)
    expected = expected.clone()
    number = 0
    while interrupted(lambda: session.context.execute_async_v3(0), number=number):
        number += 1
        assert not torch.is_inference_mode_enabled()
        assert torch.empty(1, device="meta").is_meta
        with torch.device("meta"):
            assert torch.empty(1).is_meta
        session.bound["output0"].zero_()
        assert session.context.execute_async_v3(0), session.logger.errors
        torch.testing.assert_close(session.bound["output0"], expected, rtol=0, atol=0)
        session.logger.messages.clear()
    assert number > 100


def test_interrupts_do_not_free_a_context_that_another_thread_uses() -> None:
    session = Session(plans.nonzero())
    session.bind_inputs(torch.ones(2, 5))
    entered, leave = threading.Event(), threading.Event()

    class Waiting(RecordingAllocator):
        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            entered.set()
            assert leave.wait(SECONDS_UNTIL_DEADLOCK)

    session.bind_outputs()
    session.context.set_output_allocator("output0", Waiting(torch.device("cpu")))
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(session.context.execute_async_v3(0)))
    thread.start()
    assert entered.wait(SECONDS_UNTIL_DEADLOCK)
    number = 0
    while interrupted(lambda: session.context.execute_async_v3(0), number=number):
        number += 1
        session.logger.messages.clear()
        assert not session.context.execute_async_v3(0)
        assert "in use by another thread" in session.logger.take_error()
    leave.set()
    thread.join()
    assert results == [True]
    session.logger.messages.clear()
    session.context.set_output_allocator("output0", RecordingAllocator(torch.device("cpu")))
    assert session.context.execute_async_v3(0), session.logger.errors
