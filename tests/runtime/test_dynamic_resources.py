"""use_dynamically_allocated_resources: scratch memory fits the shapes, is shared, and goes."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from tests.behaviours.recording import recorded
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import Engine, TRTModule
from trt_rt.backend import load
from trt_rt.runtime import use_dynamically_allocated_resources


class Recording:
    """A backend whose scratch memory is noted."""

    def __init__(self) -> None:
        self.backend, _ = recorded(load("reference"))
        self.given: list[tuple[int, int]] = []
        self.user_managed: list[bool] = []
        set_memory, create = self.backend.set_device_memory, self.backend.create_context

        def note_memory(context: Any, address: int, size: int) -> None:
            self.given.append((address, size))
            set_memory(context, address, size)

        def note_context(engine: Any, name: str, *, user_managed: bool = False, config: Any = None) -> Any:
            self.user_managed.append(user_managed)
            return create(engine, name, user_managed=user_managed)

        self.backend.set_device_memory = note_memory  # type: ignore[method-assign]
        self.backend.create_context = note_context  # type: ignore[method-assign]

    def module(self) -> TRTModule:
        return TRTModule(Engine.from_bytes(plans.affine(), backend=self.backend, device="cpu"))


@pytest.fixture
def recording() -> Recording:
    return Recording()


def check(called: Any, *batches: int) -> None:
    for batch in batches:
        x = torch.randn(batch, 7)
        torch.testing.assert_close(called(x), eager_affine(x))


def test_contexts_are_made_anew_on_entry_and_exit(recording: Recording) -> None:
    module = recording.module()
    check(module, 3)
    with use_dynamically_allocated_resources(module) as called:
        check(called, 3, 8)
    check(module, 3)
    assert recording.user_managed == [False, True, False]


def test_memory_is_as_large_as_the_shapes_need(recording: Recording) -> None:
    module = recording.module()
    with use_dynamically_allocated_resources(module) as called:
        check(called, 3)
        ((_, small),) = recording.given
        check(called, 32)
        assert recording.given[-1][1] > small
        check(called, 32)
        assert len(recording.given) == 2  # the same shapes: TensorRT is not asked again


def test_a_bound_call_sizes_it_by_the_values_of_its_shape_tensor() -> None:
    """Sizes follow from values, so that values are bound before the memory is sized."""
    x, length = torch.randn(4), torch.tensor([8])
    module = TRTModule(plans.shape_tensor())
    bound = module.bind(x, length)
    with use_dynamically_allocated_resources(module):
        torch.testing.assert_close(bound(), x[torch.arange(8) % 4])


def test_modules_of_one_stream_share_it(recording: Recording) -> None:
    modules = [recording.module() for _ in range(3)]
    tree = torch.nn.ModuleList(modules)
    with use_dynamically_allocated_resources(tree):
        for module in modules:
            check(module, 8)
    assert len(recording.given) == 3
    assert len(set(recording.given)) == 1


def test_threads_do_not_share_it(recording: Recording) -> None:
    """On a CPU a thread is what a stream is on a GPU: what runs at once needs memory of its own."""
    first, second = recording.module(), recording.module()
    with use_dynamically_allocated_resources(first), use_dynamically_allocated_resources(second):
        check(first, 8)
        thread = threading.Thread(target=check, args=(second, 8))
        thread.start()
        thread.join()
        assert len({address for address, _ in recording.given}) == 2


def test_memory_is_freed_on_exit(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    empty = torch.empty

    def note(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = empty(*args, **kwargs)
        if kwargs.get("dtype") is torch.uint8:
            made.append(StorageWeakRef(tensor.untyped_storage()))
        return tensor

    module = recording.module()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", note)
        with use_dynamically_allocated_resources(module) as called:
            check(called, 3, 32)
            assert made
            assert not made[-1].expired()
    gc.collect()
    assert all(storage.expired() for storage in made)


def test_it_can_be_switched_off_within(recording: Recording) -> None:
    module = recording.module()
    with use_dynamically_allocated_resources(module) as called:
        check(called, 3)
        with use_dynamically_allocated_resources(module, False):
            check(called, 3)
        check(called, 3)
    assert recording.user_managed == [False, True, False, True]


def test_no_memory_for_it(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that needs more than there is raises; the next one is right."""
    module = recording.module()
    empty = torch.empty

    def refuse(*args: Any, **kwargs: Any) -> torch.Tensor:
        if kwargs.get("dtype") is torch.uint8:
            raise torch.OutOfMemoryError("none left")
        return empty(*args, **kwargs)

    with use_dynamically_allocated_resources(module) as called:
        check(called, 3)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", refuse)
            with pytest.raises(torch.OutOfMemoryError, match="none left"):
                called(torch.randn(32, 7))
        check(called, 3, 32, 3)
    check(module, 32)


def test_left_by_another_thread_while_a_context_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A context that was made to run in our memory is given some, whatever the mode is by then."""
    module = TRTModule(plans.affine())
    x = torch.randn(3, 7)
    backend = load("reference")
    create = backend.create_context
    left = threading.Event()

    def create_and_leave(*args: Any, **options: Any) -> Any:
        context = create(*args, **options)
        if options["user_managed"] and not left.is_set():
            left.set()
            factory.settings = replace(factory.settings, shared_workspace=False)
        return context

    factory = module.executors._contexts
    monkeypatch.setattr(backend, "create_context", create_and_leave)
    with use_dynamically_allocated_resources(module):
        torch.testing.assert_close(module(x), eager_affine(x))
    assert left.is_set()
    torch.testing.assert_close(module(x), eager_affine(x))
