"""Many threads, one module."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import trt_rt
from tests.patience import SECONDS_UNTIL_DEADLOCK

pytestmark = [pytest.mark.behaviour(21), pytest.mark.usefixtures("threads_change_often")]

_THREADS = 16


def _run_at_once(*jobs: Callable[[], None]) -> None:
    """Run each job on a thread of its own, all released at one moment; raise what any of them raises."""
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        barrier.wait(SECONDS_UNTIL_DEADLOCK)
        job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(run, job) for job in jobs]:
            future.result(SECONDS_UNTIL_DEADLOCK)


def _own_stream(case) -> contextlib.AbstractContextManager:
    if case.device.type == "cuda":
        return torch.cuda.stream(torch.cuda.Stream(case.device))
    return contextlib.nullcontext()


def _calls(case, module, sizes, rounds) -> Callable[[], None]:
    def job() -> None:
        with _own_stream(case):
            held = []
            for _ in range(rounds):
                for n in sizes:
                    inputs = case.example(n)
                    held.append((module(*inputs), case.expected(*inputs)))
                    del inputs
            for result, expected in held:
                case.assert_right(result, expected)

    return job


@pytest.mark.parametrize("kind", ["relu", "two", "nonzero", "shape_tensor", "profiles"])
def test_threads_share_a_module(make, kind):
    """Sixteen threads, each on a stream of its own, call one module with several shapes; all is right."""
    case = make(kind)
    module = case.module()
    _run_at_once(*[_calls(case, module, (1 + thread % 3, 8), rounds=6) for thread in range(_THREADS)])


def test_threads_share_an_engine(make):
    """Sixteen threads, each with a module of its own over one engine: every result is right."""
    case = make("two")
    engine = case.engine()
    modules = [trt_rt.TRTModule(engine) for _ in range(_THREADS)]
    _run_at_once(*[_calls(case, module, (1, 3, 8), rounds=4) for module in modules])


def test_bound_calls_of_many_threads(make):
    """Threads with bound calls of one module each find their own tensors bound."""
    case = make("two")
    module = case.module()

    def job() -> None:
        with _own_stream(case):
            inputs = case.example(3)
            bound = module.bind(*inputs)
            for _ in range(10):
                inputs[0].normal_()
                case.assert_right(bound(), case.expected(*inputs))

    _run_at_once(*[job] * _THREADS)


def test_mutators_meanwhile(make):
    """Calls stay right while other threads switch modes, bind, add hooks and load further modules."""
    case = make("two")
    module = case.module()

    def switch() -> None:
        for _ in range(100):
            module.set_pre_allocated_outputs(False)

    def bind() -> None:
        inputs = case.example(5)
        for _ in range(20):
            case.assert_right(module.bind(*inputs)(), case.expected(*inputs))

    def hook() -> None:
        for _ in range(50):
            module.register_forward_hook(lambda *_: None).remove()

    def load() -> None:
        for _ in range(5):
            trt_rt.TRTModule(module.engine)

    _run_at_once(
        switch, bind, hook, load, *[_calls(case, module, (1, 3, 8), rounds=4) for _ in range(_THREADS - 4)]
    )


def test_failures_meanwhile(make):
    """Calls stay right while other threads' calls of the same module fail."""
    case = make("fails_if_negative")
    module = case.module()

    def fail() -> None:
        for n in (2, 4, 8):
            (x,) = case.example(n)
            with pytest.raises(trt_rt.ExecutionError, match="TensorRT says"):
                module(-x)
            with pytest.raises(trt_rt.InputError):
                module(x.half())

    _run_at_once(*[fail] * 4, *[_calls(case, module, (2, 3), rounds=4) for _ in range(_THREADS - 4)])


def test_closing_meanwhile(make):
    """Closing the engine while threads call it: each call is right, or says that the engine was closed."""
    case = make("relu")
    engine = case.engine()
    module = trt_rt.TRTModule(engine)
    started = threading.Semaphore(0)

    def use() -> None:
        with _own_stream(case):
            inputs = case.example(3)
            expected = case.expected(*inputs)
            while True:
                try:
                    result = module(*inputs)
                except trt_rt.ClosedError:
                    return
                case.assert_right(result, expected)
                started.release()

    def close() -> None:
        for _ in range(3 * (_THREADS - 1)):
            assert started.acquire(timeout=SECONDS_UNTIL_DEADLOCK)
        engine.close()

    _run_at_once(close, *[use] * (_THREADS - 1))
    assert engine.closed


def test_closing_while_everything_changes(make):
    """Threads call, switch modes, refit and stream weights meanwhile: nothing but ClosedError comes out."""
    case = make("streaming")
    engine = case.engine()
    module = trt_rt.TRTModule(engine)
    working = threading.Barrier(_THREADS)
    inputs = case.example(3)
    expected = case.expected(*inputs)

    def call() -> None:
        case.assert_right(module(*inputs), expected)

    def pre_allocate() -> None:
        with trt_rt.enable_pre_allocated_outputs(module):
            module(*inputs)

    def resources() -> None:
        with trt_rt.use_dynamically_allocated_resources(module):
            module(*inputs)

    def stream() -> None:
        with trt_rt.weight_streaming(module) as streaming:
            streaming.device_budget = 1
            module(*inputs)

    def without_contexts() -> None:
        engine.run_without_contexts(lambda _: None)

    def bind() -> None:
        module.bind(*inputs)()

    def new_module() -> None:
        trt_rt.TRTModule(engine)(*inputs)

    def refit() -> None:
        trt_rt.refit(module, case.weights)

    def until_closed(job: Callable[[], None]) -> Callable[[], None]:
        def repeat() -> None:
            with _own_stream(case), contextlib.suppress(trt_rt.ClosedError):
                job()
                working.wait(SECONDS_UNTIL_DEADLOCK)
                while True:
                    job()

        return repeat

    def close() -> None:
        working.wait(SECONDS_UNTIL_DEADLOCK)
        engine.close()

    jobs = [call, pre_allocate, resources, stream, without_contexts, bind, new_module]
    if case.weights is not None:
        jobs.append(refit)
    _run_at_once(close, *[until_closed(jobs[n % len(jobs)]) for n in range(_THREADS - 1)])
    assert engine.closed


def test_a_call_from_within_a_call(make):
    """A log handler that calls the module whose call is logging gets an error, not a deadlock."""
    case = make("fails")
    module = case.module()
    (x,) = case.example(3)
    errors = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                module(x)
            except trt_rt.TRTError as error:
                errors.append(str(error))

    handler = Handler()
    logger = logging.getLogger("trt_rt.tensorrt")
    logger.addHandler(handler)
    try:
        with pytest.raises(trt_rt.ExecutionError, match="execute_async_v3"):
            module(x)
    finally:
        logger.removeHandler(handler)
    assert any("within its own call" in error for error in errors)


def test_an_interrupted_thread_frees_the_module(make):
    """A thread that ends in the middle of its work leaves the module to the others."""
    case = make("relu")
    module = case.module()

    def job() -> None:
        module(*case.example(3))
        with pytest.raises(trt_rt.InputError):
            module(None)

    thread = threading.Thread(target=job)
    thread.start()
    thread.join(SECONDS_UNTIL_DEADLOCK)
    assert not thread.is_alive()
    inputs = case.example(3)
    case.assert_right(module(*inputs), case.expected(*inputs))
