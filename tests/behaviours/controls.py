"""Every control, each entered in a way that changes how engines are run, so that a test can try each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

from tests.factories.case import Case
from tests.runtime.played_rtx import with_runtime_settings
from trt_rt import runtime
from trt_rt.module.composition import CONTROLS
from trt_rt.module.find_engines import find_engines
from trt_rt.module.hooks import hooks_of

__all__ = ["BY_NAME", "OVER_MODES", "controllable", "state"]


@contextmanager
def _streaming(module: torch.nn.Module) -> Iterator[Callable[..., Any]]:
    """Half of the weights are streamed."""
    with runtime.weight_streaming(module) as streaming:
        streaming.device_budget = streaming.total_device_budget // 2
        yield streaming


@contextmanager
def _safe_mode(module: torch.nn.Module) -> Iterator[Callable[..., Any]]:
    with runtime.set_multi_device_safe_mode(True):
        yield module


@contextmanager
def _runtime_config(module: torch.nn.Module) -> Iterator[Callable[..., Any]]:
    for engine in find_engines(module):
        if _is_compiled(engine.engine.api):
            pytest.skip("a test cannot add TensorRT-RTX's settings to the compiled classes of these bindings")
    with runtime.runtime_config(module, cuda_graph_strategy="whole_graph_capture") as run:
        yield run


def _is_compiled(api: Any) -> bool:
    """Whether TensorRT's classes are those of its bindings: no Python class can take the place of one."""
    return type(api.Runtime).__module__ == "pybind11_builtins"


Control = Callable[[torch.nn.Module], AbstractContextManager[Any]]

# Each works for a kind of engine with weights to stream that was made `controllable`.
BY_NAME: dict[str, Control] = {
    "enable_cudagraphs": runtime.enable_cudagraphs,
    "enable_pre_allocated_outputs": runtime.enable_pre_allocated_outputs,
    "enable_output_allocator": runtime.enable_output_allocator,
    "weight_streaming": _streaming,
    "optimization_profile": lambda module: runtime.optimization_profile(module, 0),
    "use_dynamically_allocated_resources": runtime.use_dynamically_allocated_resources,
    "enable_profiling": runtime.enable_profiling,
    "runtime_config": _runtime_config,
    "set_multi_device_safe_mode": _safe_mode,
}
assert tuple(BY_NAME) == CONTROLS

# Those that change nothing but a module's modes.
OVER_MODES = (
    "enable_pre_allocated_outputs",
    "enable_output_allocator",
    "optimization_profile",
    "use_dynamically_allocated_resources",
    "enable_profiling",
)


def controllable(case: Case) -> Case:
    """The same engine of a backend that has TensorRT-RTX's runtime settings too."""
    if _is_compiled(case.backend.api):
        return case
    made = copy.copy(case)
    made.backend_argument = with_runtime_settings(case.backend)
    return made


def state(module: torch.nn.Module) -> list[Any]:
    """All that controls and calls may change, of engines and of this thread."""
    engines = find_engines(module)
    return [
        torch._C._len_torch_dispatch_stack(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_cache_enabled(),
        (torch.cuda.current_stream(), torch.cuda.current_device()) if torch.cuda.is_available() else None,
        *[hooks.copy() for engine in engines for hooks in hooks_of(engine)],
        runtime.get_multi_device_safe_mode(),
        *[engine.executors.modes for engine in engines],
        *[engine.engine.weight_streaming_budget for engine in engines],
    ]
