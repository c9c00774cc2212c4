"""Work goes to the caller's stream, and the caller waits for nothing."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.behaviours.child import assert_ends_quietly
from tests.behaviours.gate import gate
from tests.behaviours.modes import MODES, Caller
from tests.behaviours.recording import recorded
from trt_rt import ExecutionError

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["default", "other"])
def stream(request: pytest.FixtureRequest) -> Iterator[torch.cuda.Stream]:
    """The caller's current stream: the legacy default stream, or one of PyTorch's."""
    chosen = torch.cuda.default_stream() if request.param == "default" else torch.cuda.Stream()
    with torch.cuda.stream(chosen):
        yield chosen
    torch.cuda.synchronize()


def _twice(stream: torch.cuda.Stream, work: Callable[[], object]) -> object:
    """Do `work` once, so that memory and kernels are there, then behind a gate, where it must not wait."""
    work()
    torch.cuda.synchronize()
    with gate(stream) as closed:
        result = work()
        event = torch.cuda.Event()
        event.record(stream)
        assert not closed.expired, "the call waited for the device"
        assert not event.query(), "the gate did not hold, so nothing was tested"
        closed.open()
    return result


@pytest.mark.behaviour(22)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["relu", "two", "shape_tensor", "static", "empty", "slow"])
def test_a_call_does_not_wait(make, stream, mode, kind):
    """A call returns while work before it in the stream has not begun, in every mode and with new shapes."""
    case = make(kind)
    caller = Caller(case.module(), mode)
    inputs = [case.example(n) for n in (3, 5, 3)]
    expected = [case.expected(*tensors) for tensors in inputs]
    results = _twice(stream, lambda: [caller(*pair) for pair in zip(inputs, expected, strict=True)])
    case.assert_right(results[-1], expected[-1])


@pytest.mark.behaviour(22)
def test_an_aliased_input_does_not_wait(make, stream):
    """The same for an engine that writes into its input, which the next call reads."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    start = cache.clone()
    once = case.expected(cache, x)[0]

    def work() -> torch.Tensor:
        cache.copy_(start)
        module(cache, x)
        return module(cache, x)

    case.assert_right(_twice(stream, work), case.expected(once, x))


@pytest.mark.behaviour(22)
@pytest.mark.parametrize("mode", MODES)
def test_pytorch_sees_no_synchronisation(make, stream, mode):
    """PyTorch's own detector of synchronising calls has nothing to object to."""
    case = make("relu")
    caller = Caller(case.module(), mode)
    inputs = case.example(3)
    expected = case.expected(*inputs)
    caller(inputs, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that its detector is a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            result = caller(inputs, expected)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    case.assert_right(result, expected)


@pytest.mark.behaviour(22)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["relu", "slow"])
def test_between_producer_and_consumer(make, stream, mode, kind):
    """The engine reads what was written before it in the stream; what follows there reads its output."""
    case = make(kind)
    module = case.module()
    module.set_pre_allocated_outputs(mode == "pre_allocated")
    values = case.example(8)[0]
    x = torch.zeros_like(values)
    out = torch.zeros_like(values)
    bound = module.bind(x, out=out)
    calls = {"bound": bound, "out": lambda: module(x, out=out)}
    call = calls.get(mode, lambda: module(x))

    def work() -> torch.Tensor:
        x.zero_()
        x.copy_(values)  # the producer
        result = call()
        x.fill_(float("nan"))  # too late for the engine
        consumed = result.clone()
        result.fill_(-1)
        return consumed

    case.assert_right(_twice(stream, work), case.expected(values))


@pytest.mark.behaviour(11)
@pytest.mark.parametrize("layout", ["transposed", "unaligned"])
@pytest.mark.parametrize("kind", ["relu", "slow"])
def test_a_temporary_lives_until_it_is_read(make, stream, kind, layout):
    """The copy of a non-contiguous or unaligned input is whole when the engine reads it, however late."""
    case = make(kind)
    module = case.module()
    (values,) = case.example(8)

    def work() -> torch.Tensor:
        if layout == "transposed":
            x = values.t().contiguous().t()
        else:
            x = torch.empty(values.numel() + 1, device=values.device)[1:].view_as(values).copy_(values)
        result = module(x)
        del x
        # Whoever gets the temporary's memory next, in this stream, overwrites it.
        for _ in range(20):
            torch.full_like(values, float("nan"))
        return result

    case.assert_right(_twice(stream, work), case.expected(values))


@pytest.mark.behaviour(22)
def test_the_handle_is_the_callers(make):
    """TensorRT is given the very stream that is current, whichever thread or context made it so."""
    case = make("relu")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    inputs = case.example(3)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(3)]
    streams += [torch.cuda.Stream(priority=-1), streams[0]]
    for stream in streams:
        calls.made.clear()
        with torch.cuda.stream(stream):
            module(*inputs)
            module.bind(*inputs)()
        assert calls.arguments("execute_async_v3") == [(stream.cuda_stream,)] * 2
    torch.cuda.synchronize()


@pytest.mark.behaviour(22)
def test_a_stream_that_is_gone(make, tmp_path):
    """The stream of the last call may be destroyed before the next call, and before the engine is."""
    assert_ends_quietly(
        make("relu"),
        tmp_path,
        """
from cuda.bindings import driver
module, other = trt_rt.TRTModule(new_engine()), trt_rt.TRTModule(new_engine())
expected = module(*inputs).clone()
for _ in range(3):
    error, handle = driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
    stream = torch.cuda.ExternalStream(int(handle))
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        results = [module(*inputs), other(*inputs)]
    stream.synchronize()
    driver.cuStreamDestroy(handle)
    assert all(torch.equal(result, expected) for result in results)
    assert torch.equal(module(*inputs), expected)
other.engine.close()
""",
    )


@pytest.mark.behaviour(22)
def test_never_the_default_stream(make):
    """From the default stream, where TensorRT would synchronise, work goes through another one."""
    case = make("relu")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    inputs = case.example(3)
    for _ in range(3):
        module(*inputs)
        module.bind(*inputs)()
    handles = {handle for (handle,) in calls.arguments("execute_async_v3")}
    assert len(handles) == 1
    assert not handles & {0, 1, 2}
    case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(22)
def test_the_per_thread_default_stream_is_refused(make):
    """Its handle is another stream in each thread: two threads would share one context unordered."""
    case = make("relu")
    module = case.module()
    inputs = case.example(3)
    bound = module.bind(*inputs)
    with torch.cuda.stream(torch.cuda.ExternalStream(2)):
        for call in (lambda: module(*inputs), bound):
            with pytest.raises(ExecutionError, match="per-thread default stream"):
                call()
    case.assert_right(module(*inputs), case.expected(*inputs))
    case.assert_right(bound(), case.expected(*inputs))


@pytest.mark.behaviour(22)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["relu", "two", "shape_tensor", "static", "slow", "profiles"])
def test_capture_by_the_user(make, mode, kind):
    """A call captured in the user's own CUDA graph replays on new values; ordinary calls stay right."""
    case = make(kind)
    module = case.module()
    caller = Caller(module, mode)
    inputs, others = case.example(4), case.example(4)
    expected = case.expected(*inputs)
    # A bound call is made before: setting addresses and shapes is no work for the device.
    bound = module.bind(*inputs) if mode == "bound" else None
    call = bound if bound is not None else (lambda: caller(inputs, expected))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    for new in (inputs, others, case.example(4)):
        for tensor, value in zip(inputs, new, strict=True):
            if tensor.device.type == "cuda":
                tensor.copy_(value)
        graph.replay()
        torch.cuda.synchronize()
        case.assert_right(result, case.expected(*inputs))
    held = []
    for n in (4, 3, 4):
        fresh = case.example(n)
        held.append((module(*fresh), case.expected(*fresh)))
    if mode != "pre_allocated":
        for output, wanted in held:
            case.assert_right(output, wanted)
    del result, held, graph


@pytest.mark.behaviour(22)
@pytest.mark.parametrize("mode", MODES)
def test_capture_alone_leaves_the_module_usable(make, mode):
    """A capture that is given up in the middle leaves the module as it was."""
    case = make("relu")
    caller = Caller(case.module(), mode)
    inputs = case.example(4)
    expected = case.expected(*inputs)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        caller(inputs, expected)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with contextlib.suppress(ZeroDivisionError), torch.cuda.graph(graph):
        caller(inputs, expected)
        raise ZeroDivisionError
    for n in (4, 5, 4):
        inputs = case.example(n)
        expected = case.expected(*inputs)
        case.assert_right(caller(inputs, expected), expected)
