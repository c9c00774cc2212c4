"""The caller's current device, and engines on other GPUs."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import trt_rt
from tests.behaviours.recording import recorded
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt import set_multi_device_safe_mode

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.*multi-device safe mode switches:RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def safe_mode() -> Iterator[None]:
    """On, so that engines may be called with another GPU current."""
    set_multi_device_safe_mode(True)
    yield
    set_multi_device_safe_mode(False)


@pytest.fixture(params=[0, 1], ids=["on-0", "on-1"])
def current_device(request: pytest.FixtureRequest) -> Iterator[int]:
    """The caller's current device, which must stay so."""
    if request.param >= torch.cuda.device_count():
        pytest.skip(f"needs two GPUs: torch.cuda.device_count() is {torch.cuda.device_count()} here")
    with torch.cuda.device(request.param):
        yield request.param
        assert torch.cuda.current_device() == request.param


def _on(case, index):
    """The factory's engine on a certain GPU, whichever is current."""
    engine = trt_rt.Engine.from_bytes(case.plan, backend=case.backend_argument, device=index, name=case.kind)
    assert engine.device == torch.device("cuda", index)
    return trt_rt.TRTModule(engine)


def _inputs(case, index):
    with torch.cuda.device(index):
        return tuple(
            tensor if tensor.device.type == "cpu" else tensor.to(index) for tensor in case.example(3)
        )


def _assert_right(case, result, inputs):
    expected = case.expected(*(tensor.to(case.device) for tensor in inputs))
    outputs = result if isinstance(result, tuple) else (result,)
    for output, wanted, index in zip(outputs, expected, [inputs[0].device] * len(expected), strict=True):
        assert output.device == index
        torch.testing.assert_close(output.to(wanted.device), wanted)


@pytest.mark.behaviour(20)
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("kind", ["relu", "two", "nonzero", "shape_tensor"])
def test_the_current_device_stays(make, current_device, kind, index):
    """Loading, calling, binding, failing and closing keep the current device; outputs lie on the engine's."""
    if index >= torch.cuda.device_count():
        pytest.skip(f"needs two GPUs: torch.cuda.device_count() is {torch.cuda.device_count()} here")
    case = make(kind)
    module = _on(case, index)
    assert torch.cuda.current_device() == current_device
    for pre_allocated in (False, True):
        module.set_pre_allocated_outputs(pre_allocated)
        inputs = _inputs(case, index)
        for call in (module, lambda *tensors: module.bind(*tensors)()):
            result = call(*inputs)
            assert torch.cuda.current_device() == current_device
            _assert_right(case, result, inputs)
        with pytest.raises(trt_rt.InputError):
            module(*inputs, inputs[0])
        with pytest.raises(trt_rt.InputError):
            module(inputs[0].cpu(), *inputs[1:])
        assert torch.cuda.current_device() == current_device
    module.engine.close()
    assert torch.cuda.current_device() == current_device


@pytest.mark.behaviour(20)
def test_a_failing_engine(make, current_device):
    """A call that TensorRT refuses leaves the current device too."""
    case = make("fails")
    index = torch.cuda.device_count() - 1
    module = _on(case, index)
    with pytest.raises(trt_rt.ExecutionError):
        module(*_inputs(case, index))
    assert torch.cuda.current_device() == current_device


@pytest.mark.behaviour(20)
def test_a_thread_without_context(make):
    """A thread that has not used CUDA yet can load and call engines."""
    case = make("two")
    module = case.module()
    inputs = case.example(3)
    torch.cuda.synchronize()
    results = []

    def work():
        results.append(module(*inputs))
        results.append(case.module()(*inputs))
        results.append(module.bind(*inputs)())
        torch.cuda.current_stream().synchronize()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(SECONDS_UNTIL_DEADLOCK)
    assert not thread.is_alive()
    assert len(results) == 3
    for result in results:
        case.assert_right(result, case.expected(*inputs))


@pytest.mark.behaviour(20)
def test_a_thread_without_context_may_let_go(make):
    """An engine whose last reference goes in a thread that has not used CUDA is freed there."""
    case = make("relu")
    holder = [case.module()]
    holder[0](*case.example(3))
    thread = threading.Thread(target=holder.clear)
    thread.start()
    thread.join(SECONDS_UNTIL_DEADLOCK)
    assert not holder
    inputs = case.example(3)
    case.assert_right(case.module()(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(24)
def test_an_input_on_another_gpu(make):
    """With the caller on another GPU than the engine, a tensor of the wrong one is an error, no crash."""
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs: torch.cuda.device_count() is {torch.cuda.device_count()} here")
    case = make("two")
    for engine_on, other in ((0, 1), (1, 0)):
        module = _on(case, engine_on)
        right, wrong = _inputs(case, engine_on), _inputs(case, other)
        for current in (0, 1):
            with torch.cuda.device(current):
                for inputs in (wrong, (right[0], wrong[1]), (wrong[0], right[1])):
                    with pytest.raises(trt_rt.InputError, match=f"cuda:{engine_on}.*cuda:{other}"):
                        module(*inputs)
                assert torch.cuda.current_device() == current
                _assert_right(case, module(*right), right)


@pytest.mark.behaviour(24)
def test_the_stream_is_that_of_the_engines_device(make):
    """With the caller on another GPU, work goes to the current stream of the engine's GPU."""
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs: torch.cuda.device_count() is {torch.cuda.device_count()} here")
    case = make("relu")
    backend, calls = recorded(case.backend)
    module = trt_rt.TRTModule(trt_rt.Engine.from_bytes(case.plan, backend=backend, device=1))
    inputs = _inputs(case, 1)
    stream = torch.cuda.Stream(1)
    stream.wait_stream(torch.cuda.current_stream(1))
    with torch.cuda.stream(stream), torch.cuda.device(0):
        current = torch.cuda.current_stream(1)
        result = module(*inputs)
        assert torch.cuda.current_device() == 0
    assert calls.arguments("execute_async_v3") == [(current.cuda_stream,)]
    torch.cuda.synchronize(1)
    _assert_right(case, result, inputs)


@pytest.mark.behaviour(24)
@pytest.mark.parametrize("default_stream", [True, False])
def test_safe_mode_switches_back_and_warns_once(make, default_stream):
    """With safe mode on a call for another GPU is right, leaves the current device, and warns once."""
    _need_two_gpus()
    case = make("two")
    module, inputs = _on(case, 1), _inputs(case, 1)
    stream = torch.cuda.default_stream(1) if default_stream else torch.cuda.Stream(1)
    stream.wait_stream(torch.cuda.default_stream(1))
    set_multi_device_safe_mode(True)
    with torch.cuda.stream(stream), torch.cuda.device(0):
        with pytest.warns(RuntimeWarning, match="multi-device safe mode switches"):
            results = [module(*inputs)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            results += [module(*inputs), module.bind(*inputs)()]
        assert torch.cuda.current_device() == 0
    for result in results:
        _assert_right(case, result, inputs)


@pytest.mark.behaviour(24)
@pytest.mark.parametrize("default_stream", [True, False])
def test_without_safe_mode_a_mismatch_is_an_error(make, default_stream):
    """With safe mode off a call for another GPU raises, and the next call under the right one is right."""
    _need_two_gpus()
    case = make("two")
    module, inputs = _on(case, 1), _inputs(case, 1)
    stream = torch.cuda.default_stream(1) if default_stream else torch.cuda.Stream(1)
    stream.wait_stream(torch.cuda.default_stream(1))
    set_multi_device_safe_mode(False)
    for _ in range(2):
        with torch.cuda.stream(stream), torch.cuda.device(0):
            with pytest.raises(trt_rt.ExecutionError, match="cuda:1"):
                module(*inputs)
            assert torch.cuda.current_device() == 0
        with torch.cuda.stream(stream):
            _assert_right(case, module(*inputs), inputs)


@pytest.mark.behaviour(24)
@pytest.mark.parametrize("graphs", [False, True])
def test_engines_on_two_gpus(make, graphs):
    """Engines on two GPUs in one process, called in turn by one thread, then by a thread each at once."""
    _need_two_gpus()
    case = make("two")
    modules = [_on(case, index) for index in (0, 1)]
    for module in modules:
        module.executors.change(cuda_graphs=graphs)
    inputs = [_inputs(case, index) for index in (0, 1)]
    for _ in range(3):
        for index in (0, 1):
            _assert_right(case, modules[index](*inputs[index]), inputs[index])

    def work(index):
        for _ in range(20):
            _assert_right(case, modules[index](*inputs[index]), inputs[index])
            _assert_right(case, modules[1 - index](*inputs[1 - index]), inputs[1 - index])

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, index) for index in (0, 1)]:
            done.result(SECONDS_UNTIL_DEADLOCK)


def _need_two_gpus():
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs: torch.cuda.device_count() is {torch.cuda.device_count()} here")
