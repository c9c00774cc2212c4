"""The ways to call an engine or a program that are compared with one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch

from trt_rt.errors import SettingError
from trt_rt.module import TRTModule
from trt_rt.report.target import Target, Workload
from trt_rt.runtime import enable_cudagraphs, enable_pre_allocated_outputs

__all__ = ["MODES", "Call", "Mode", "find_mode"]

Control: TypeAlias = Callable[[torch.nn.Module], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Call:
    """A call that is ready to be timed.

    Attributes
    ----------
    function : callable
        What is called.
    arguments : tuple
        Positional arguments.
    keywords : dict
        Keyword arguments.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] | None = None

    def __call__(self) -> Any:
        """Make one call."""
        return self.function(*self.arguments, **(self.keywords or {}))


@dataclass(frozen=True)
class Mode:
    """One way to call a module.

    Attributes
    ----------
    name : str
        For people and the command line.
    summary : str
        A sentence.
    controls : tuple
        The controls of `trt_rt.runtime` that are entered, in this order.
    prepare : callable
        Takes the module, what the last control gave, and the workload; returns the call.
    """

    name: str
    summary: str
    controls: tuple[Control, ...]
    prepare: Callable[[torch.nn.Module, Any, Workload], Call]

    @property
    def uses_graphs(self) -> bool:
        """Whether calls replay CUDA graphs."""
        return any(control in (enable_cudagraphs, _whole_graph) for control in self.controls)

    def call(self, target: Target, workload: Workload, stack: ExitStack) -> Call:
        """Return a call of a new module of the target in this mode.

        Parameters
        ----------
        target : Target
            What is measured.
        workload : Workload
            The arguments.
        stack : ExitStack
            Leaves the mode.

        Raises
        ------
        Exception
            The target cannot be called in this mode; the message says why.
        """
        module = target.new_module()
        given: Any = None
        for control in self.controls:
            given = stack.enter_context(control(module))
        return self.prepare(module, given, workload)


def _plain(module: torch.nn.Module, given: Any, workload: Workload) -> Call:
    return Call(module, workload.arguments, workload.keywords)


def _through(module: torch.nn.Module, given: Any, workload: Workload) -> Call:
    return Call(given, workload.arguments, workload.keywords)


def _into(module: torch.nn.Module, given: Any, workload: Workload) -> Call:
    _require_engine(module, "out=")
    out = module(*workload.arguments, **workload.keywords)
    return Call(module, workload.arguments, {**workload.keywords, "out": out})


def _bound(module: torch.nn.Module, given: Any, workload: Workload) -> Call:
    return Call(_require_engine(module, "bind").bind(*workload.arguments, **workload.keywords))


def _require_engine(module: torch.nn.Module, what: str) -> TRTModule:
    if not isinstance(module, TRTModule):
        raise SettingError(f"only a module of one engine has {what}")
    return module


_whole_graph: Control = partial(enable_cudagraphs, whole_graph=True)

MODES = (
    Mode("fresh", "A call returns new tensors.", (), _plain),
    Mode(
        "pre-allocated", "Results are overwritten by the next call.", (enable_pre_allocated_outputs,), _plain
    ),
    Mode("out", "Results go into the caller's tensors.", (), _into),
    Mode("bind", "All addresses are set once.", (), _bound),
    Mode(
        "graphs",
        "Each engine is replayed as a CUDA graph; results are new tensors.",
        (enable_cudagraphs,),
        _plain,
    ),
    Mode(
        "graphs-pre-allocated",
        "Each engine is replayed as a CUDA graph; results are overwritten by the next call.",
        (enable_pre_allocated_outputs, enable_cudagraphs),
        _plain,
    ),
    Mode("graphs-bind", "A bound call is replayed as a CUDA graph.", (enable_cudagraphs,), _bound),
    Mode(
        "whole-program",
        "The whole program is replayed as one CUDA graph; results are overwritten by the next call.",
        (enable_pre_allocated_outputs, _whole_graph),
        _through,
    ),
)


def find_mode(name: str) -> Mode:
    """Return the mode of this name.

    Raises
    ------
    SettingError
        There is none.
    """
    for mode in MODES:
        if mode.name == name:
            return mode
    raise SettingError(f"there is no mode {name!r}; the modes are {', '.join(mode.name for mode in MODES)}.")
