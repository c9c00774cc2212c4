"""The control that marks calls as ranges for Nsight Systems."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch.export import ExportedProgram

from trt_rt._core.critical import Scope
from trt_rt.errors import BackendError
from trt_rt.module.call_observer import Span
from trt_rt.module.find_engines import as_module
from trt_rt.observe.observation import Observation

__all__ = ["enable_nvtx"]


def enable_nvtx(module: torch.nn.Module | ExportedProgram) -> Scope[torch.nn.Module]:
    """Mark every call as an NVTX range, which Nsight Systems shows.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything with engines anywhere in it.

    Returns
    -------
    context manager
        ``as`` binds the module. Each call is a range with the engine's name and the shapes of the arguments.
        Within it are ranges for copies of arguments, shapes and addresses that TensorRT is told, new
        execution contexts, and the enqueueing of the engine.

    Raises
    ------
    BackendError
        At entry: this PyTorch has no NVTX, and the package ``nvtx`` is not installed.
    ValueError
        At entry: there is no engine in `module`.
    TypeError
        At entry: `module` is neither a module nor a program.

    Notes
    -----
    Outside of the context calls are made as if this did not exist. Within it, a call takes several
    microseconds longer.

    Examples
    --------
    >>> ranges = enable_nvtx(module)
    >>> with ranges:  # doctest: +SKIP
    ...     y = module(x)
    """
    return _Nvtx(module)


class _Nvtx(Scope[torch.nn.Module]):
    def __init__(self, module: torch.nn.Module | ExportedProgram) -> None:
        self._given = module

    def _new_entry(self) -> _Entry:
        module = as_module(self._given)
        return _Entry(module, Observation(module, _Ranges(*_range_functions())))


class _Entry:
    def __init__(self, module: torch.nn.Module, observation: Observation) -> None:
        self._module = module
        self._observation = observation

    def begin(self) -> torch.nn.Module:
        self._observation.begin()
        return self._module

    def end(self, may_wait: bool) -> None:
        self._observation.end()


class _Ranges:
    """Marks spans as ranges."""

    def __init__(self, push: Callable[[str], object], pop: Callable[[], object]) -> None:
        self._push = push
        self._pop = pop

    def begin(self, span: Span) -> Callable[[], object]:
        """Open a range."""
        self._push(span.name)
        return self._pop


def _range_functions() -> tuple[Callable[[str], object], Callable[[], object]]:
    """Return the functions that open and close a range: of PyTorch, or of the package ``nvtx``."""
    if hasattr(torch._C, "_nvtx"):
        return torch.cuda.nvtx.range_push, torch.cuda.nvtx.range_pop
    try:
        nvtx: Any = import_module("nvtx")
    except ModuleNotFoundError:
        raise BackendError(
            "enable_nvtx needs NVTX, which this PyTorch was built without, and the package nvtx is not "
            "installed. Install a PyTorch with CUDA, or run: pip install nvtx"
        ) from None
    return nvtx.push_range, nvtx.pop_range
