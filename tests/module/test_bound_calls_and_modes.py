"""Bound calls beside modes that were switched since, and beside calls with other shapes and values."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
import torch

import trt_rt
from tests.reference import plans
from tests.reference.plans import eager_affine


@pytest.mark.parametrize("graphs", [False, True])
def test_bound_within_the_output_allocator_and_called_after_it(graphs: bool) -> None:
    """Its allocator is not left on the context for ordinary calls, of the same shape and of others."""
    module = trt_rt.TRTModule(plans.affine())
    x = torch.randn(3, 7)
    with trt_rt.enable_output_allocator(module):
        bound = module.bind(x)
        torch.testing.assert_close(bound(), eager_affine(x))
    module.executors.change(cuda_graphs=graphs)
    for size in (5, 3, 5, 3):
        y, out = torch.randn(size, 7), torch.full((size, 7), -9.0)
        torch.testing.assert_close(bound(), eager_affine(x))
        torch.testing.assert_close(module(y), eager_affine(y))
        torch.testing.assert_close(bound(), eager_affine(x))
        torch.testing.assert_close(module(y, out=out), eager_affine(y))


def test_bound_before_the_output_allocator_and_called_within_it() -> None:
    """It writes to the tensors that it was bound to."""
    module = trt_rt.TRTModule(plans.affine())
    x = torch.randn(3, 7)
    bound = module.bind(x)
    bound()
    with trt_rt.enable_output_allocator(module):
        for _ in range(2):
            y = torch.randn(5, 7)
            torch.testing.assert_close(module(y), eager_affine(y))
            x.normal_()
            torch.testing.assert_close(bound(), eager_affine(x))


@pytest.mark.parametrize("graphs", [False, True])
def test_a_shape_tensors_values_are_the_bound_calls_own(graphs: bool) -> None:
    """Calls with other values, in memory that has grown since, do not change those that were bound."""
    module = trt_rt.TRTModule(plans.shape_tensor())
    module.executors.change(cuda_graphs=graphs)
    x = torch.randn(4)
    bound = module.bind(x, torch.tensor([3]))
    for length in (9, 1, 9, 2):
        torch.testing.assert_close(module(x, torch.tensor([length])), x[torch.arange(length) % 4])
        torch.testing.assert_close(bound(), x[torch.arange(3) % 4])


def test_an_allocation_error_keeps_no_frames_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller had at hand when memory was short can be freed."""

    class Short(RuntimeError):
        """No memory."""

    module = trt_rt.TRTModule(plans.nonzero())
    x = torch.ones(3, 5)
    module(x)  # so that nothing but the outputs' memory is asked for below

    def call() -> weakref.ref[Any]:
        mine = torch.ones(1)

        def refuse(*_: Any, **__: Any) -> Any:
            raise Short

        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", refuse)
            with pytest.raises(Short):
                module(x)
        return weakref.ref(mine)

    gone = call()
    gc.collect()
    assert gone() is None
    torch.testing.assert_close(module(x)[0], torch.nonzero(x))


def test_a_mode_that_changes_while_an_executor_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor that another thread is just getting is told too."""
    module = trt_rt.TRTModule(plans.affine())
    module.set_pre_allocated_outputs(True)
    module(torch.randn(3, 7))  # this thread has the executor that every module has from the start
    configure = module.executors._configure

    def leave_then(executor: Any, **options: Any) -> None:
        configure(executor, **options)
        monkeypatch.undo()
        module.set_pre_allocated_outputs(False)  # between the executor's making and its joining the pool

    monkeypatch.setattr(module.executors, "_configure", leave_then)
    seen = []

    def work() -> None:
        x = torch.randn(3, 7)
        seen.extend([module(x), module(x)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[0].data_ptr() != seen[1].data_ptr()
