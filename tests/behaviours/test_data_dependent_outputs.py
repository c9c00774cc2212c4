"""Outputs whose size is known during the run only, and their memory."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch

import trt_rt
from tests.behaviours.recording import recorded


class _Requests:
    """What TensorRT asked of output allocators, and the addresses that it got."""

    def __init__(self, case, calls):
        self.made = []
        make_call = calls.make
        requests = self

        class Recorder(case.backend.api.IOutputAllocator):
            def __init__(self, allocator):
                case.backend.api.IOutputAllocator.__init__(self)
                self.allocator = allocator

            def reallocate_output(self, name, memory, size, alignment):
                address = self.allocator.reallocate_output(name, memory, size, alignment)
                requests.made.append((name, size, alignment, address))
                return address

            def reallocate_output_async(self, name, memory, size, alignment, stream):
                address = self.allocator.reallocate_output_async(name, memory, size, alignment, stream)
                requests.made.append((name, size, alignment, address))
                return address

            def notify_shape(self, name, shape):
                self.allocator.notify_shape(name, shape)

        def make(name, method, arguments):
            if name == "set_output_allocator" and arguments[1] is not None:
                arguments = (arguments[0], Recorder(arguments[1]))
            return make_call(name, method, arguments)

        calls.make = make


def _fits(size, result):
    """Whether `size` bytes are what `result` needs; TensorRT 8.6 asks allocators for multiples of 512."""
    return result.nbytes <= size <= max(math.ceil(result.nbytes / 512) * 512, 1)


@pytest.mark.behaviour(18)
@pytest.mark.parametrize("n", [1, 3, 32])
def test_memory_of_the_needed_size(make, n):
    """The result owns a storage of its own bytes, as TensorRT rounds them, and starts where that starts."""
    case = make("nonzero")
    module = case.module()
    for _ in range(3):
        inputs = case.example(n)
        result = module(*inputs)
        case.assert_right(result, case.expected(*inputs))
        assert result.storage_offset() == 0
        assert result.is_contiguous()
        assert result._base is None
        assert _fits(result.untyped_storage().nbytes(), result)


@pytest.mark.behaviour(18)
def test_empty_results_own_their_memory(make):
    """A result without elements is a tensor of its own, and no view of another."""
    case = make("nonzero")
    (x,) = case.example(3)
    result = case.module()(torch.zeros_like(x))
    assert result.numel() == 0
    assert result._base is None
    result.resize_(4, 2).fill_(1)


@pytest.mark.behaviour(18)
def test_sizes_are_bytes_and_nothing_is_copied(make):
    """What TensorRT asks for is taken as bytes, and the memory that it got is the result's."""
    case = make("nonzero")
    backend, calls = recorded(case.backend)
    requests = _Requests(case, calls)
    module = case.module(backend)
    for n in (3, 32, 1, 3):
        requests.made.clear()
        inputs = case.example(n)
        result = module(*inputs)
        case.assert_right(result, case.expected(*inputs))
        ((name, size, alignment, address),) = requests.made
        assert name == case.outputs[0]
        assert _fits(size, result)
        assert address % min(alignment, case.alignment) == 0
        if result.numel():
            assert result.data_ptr() == address


@pytest.mark.behaviour(18)
def test_results_may_be_used_like_any_tensor(make):
    """A result can be resized, written into and freed without harm to other results or to the module."""
    case = make("nonzero")
    module = case.module()
    inputs = case.example(8)
    kept, used = module(*inputs), module(*inputs)
    used.resize_(used.shape[0] * 4, 2).fill_(-1)
    del used
    for _ in range(3):
        case.assert_right(module(*inputs), case.expected(*inputs))
    case.assert_right(kept, case.expected(*inputs))


@pytest.mark.behaviour(18)
@pytest.mark.parametrize(
    "kind", ["relu", "two", "many", "nonzero", "half", "empty", "scalar", "shape_tensor"]
)
def test_every_output_allocated_by_tensorrt(make, kind):
    """On request TensorRT allocates all outputs; results are as ever, each in memory of its own size."""
    case = make(kind)
    module = case.module(requires_output_allocator=True)
    held = []
    for n in (3, 1, 3, 8):
        inputs = case.example(n)
        held.append((module(*inputs), case.expected(*inputs)))
    for result, expected in held:
        case.assert_right(result, expected)
        for output in result if isinstance(result, tuple) else (result,):
            assert _fits(output.untyped_storage().nbytes(), output)


@pytest.mark.behaviour(18)
def test_callers_outputs_are_refused(make):
    """Where TensorRT allocates, out= is refused, and the next call is right."""
    case = make("nonzero")
    module = case.module()
    inputs = case.example(3)
    with pytest.raises(trt_rt.InputError, match="out="):
        module(*inputs, out=torch.empty(3, 2, dtype=torch.int64, device=case.device))
    case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(18)
def test_a_bound_call_gives_new_results(make):
    """A bound call of a data-dependent engine returns a new tensor every time, of that run's size."""
    case = make("nonzero")
    module = case.module()
    (x,) = case.example(8)
    bound = module.bind(x)
    held = []
    for factor in (1, 0, 1):
        x.mul_(0).add_(factor * torch.ones_like(x))
        held.append((bound(), case.expected(x)))
    for result, expected in held:
        case.assert_right(result, expected)


@contextlib.contextmanager
def _no_memory(monkeypatch, error):
    """Let PyTorch raise `error` when it is asked for bytes, as output allocators do."""
    empty = torch.empty

    def refuse_bytes(*args, **kwargs):
        if kwargs.get("dtype") is torch.uint8:
            raise error
        return empty(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", refuse_bytes)
        yield


@pytest.mark.behaviour(19)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory left"), MemoryError("no memory left")])
def test_out_of_memory_in_the_allocator(make, monkeypatch, error):
    """When PyTorch has no memory for a data-dependent output its own error arrives; the next call works."""
    case = make("nonzero")
    module = case.module()
    for inputs in (case.example(3), case.example(8)):
        case.assert_right(module(*inputs), case.expected(*inputs))
        with _no_memory(monkeypatch, error), pytest.raises(type(error)) as caught:
            module(*inputs)
        assert caught.value is error
        case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(19)
def test_a_later_failure_is_not_mistaken_for_it(make, monkeypatch):
    """A run refused after one that had no memory says why it was refused, not that memory was short."""
    case = make("nonzero")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    inputs = case.example(3)

    module(*inputs)
    with _no_memory(monkeypatch, MemoryError()), pytest.raises(MemoryError):
        module(*inputs)
    with calls.failing("execute_async_v3"), pytest.raises(trt_rt.ExecutionError, match="execute_async_v3"):
        module(*inputs)
    case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(19)
@pytest.mark.parametrize("mode", ["fresh", "pre_allocated", "bound"])
def test_an_output_that_no_machine_can_hold(make, mode):
    """When there is no memory for an ordinary output, the error says so, and the next call works."""
    case = make("huge")
    module = case.module()
    module.set_pre_allocated_outputs(mode == "pre_allocated")
    call = (lambda *inputs: module.bind(*inputs)()) if mode == "bound" else module
    for n in (2, 5):
        x, s = case.example(n)
        case.assert_right(call(x, s), case.expected(x, s))
        with pytest.raises((torch.OutOfMemoryError, MemoryError)):
            call(x, torch.full_like(s, 2**24))
        case.assert_right(call(x, s), case.expected(x, s))
