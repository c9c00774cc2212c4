"""A program of engines and PyTorch operators that is run as one CUDA graph."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from trt_rt._core.call import ArgumentKinds
from trt_rt._core.critical import Gate, between, complete
from trt_rt.capture.captured_program import CapturedProgram
from trt_rt.capture.inputs import ProgramInputs, flatten
from trt_rt.capture.program_capture import ProgramCapture
from trt_rt.capture.stream_sequence import StreamSequence
from trt_rt.module import TRTModule

__all__ = ["WholeGraph"]


_SWITCH_GRAD_OFF = partial(torch._C._set_grad_enabled, False)
_SWITCH_GRAD_ON = partial(torch._C._set_grad_enabled, True)


class WholeGraph(torch.nn.Module):
    """Calls a program through graphs of all of it; `enable_cudagraphs` makes it.

    On a CPU, where there are no CUDA graphs, the program itself is run on the same static tensors, so that
    everything but the graph is the same.

    Parameters
    ----------
    program : torch.nn.Module
        What runs.
    modules : sequence of TRTModule
        Its engines, all on one device.
    max_graphs : int
        How many graphs are kept; the one used least recently is dropped.

    Attributes
    ----------
    program : torch.nn.Module
        As it was given.

    Notes
    -----
    One graph serves all calls whose tensors have the same shapes, dtypes, devices and strides, and whose
    other arguments are equal. The first such call runs the program, on static copies of its inputs, and
    captures it; the program's Python code runs a second time for that, while nothing is executed. Later calls
    copy their inputs to the static ones and launch the graph: nothing of the program's Python code runs. What
    the program writes into its arguments, callers find there.

    Calls from several threads and streams run one after the other, since they share static tensors. Outputs
    never require grad.
    """

    def __init__(self, program: torch.nn.Module, modules: Sequence[TRTModule], max_graphs: int) -> None:
        super().__init__()
        self.program = program
        self._engines = tuple(modules)
        self._max_graphs = max_graphs
        self._device = modules[0].engine.device
        self._inputs = ProgramInputs(self._device)
        self._sequence = StreamSequence(self._device)
        self._capture = ProgramCapture(self._run_program, self._engines, self._device, self._sequence)
        self._graphs: dict[Hashable, _Graph] = {}
        self._last: _Graph | None = None
        self._gate = Gate("a program that is run as one CUDA graph was called from within its own call.")
        self._closed = False
        self._state = _BakedState(program, self._engines)
        self._counts = {"calls": 0, "captures": 0, "replays": 0}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program on the caller's current stream.

        Parameters
        ----------
        *args, **kwargs
            As the program takes them: tensors, numbers and strings, in lists, tuples and dicts.

        Returns
        -------
        object
            What the program returns, in new tensors, valid in the order of the stream; in memory that is
            reused if every engine has pre-allocated outputs on.

        Raises
        ------
        InputError
            If an argument cannot be compared with those of other calls, or an engine refuses it.
        ExecutionError
            If the program cannot be captured, with the reason.
        torch.OutOfMemoryError, MemoryError
            If there is no memory.
        """
        if self._closed or (self._device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            return self.program(*args, **kwargs)
        call = partial(self._call_in_turn, args, kwargs)
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False):
                return self._gate.run(call)
        return self._gate.run(call)

    def _call_in_turn(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # As torch.no_grad does, which takes as long as a launch.
        restore_grad = _SWITCH_GRAD_ON if torch.is_grad_enabled() else _SWITCH_GRAD_OFF
        return between(_SWITCH_GRAD_OFF, partial(self._call_in_order, args, kwargs), restore_grad)

    def _call_in_order(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._sequence.begin()
        try:
            return self._call(args, kwargs)
        finally:
            complete(self._sequence.end)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = self._state.look()
        if changed is not None:
            self._drop_all()
            self._state.found = changed  # only now: an interrupt must not keep graphs of another state
        autocast = _autocast(self._device.type)
        buffers = self._state.found.buffers
        graph = None if kwargs else self._find(args, autocast)
        if graph is not None:
            was_run, result = self._replay(graph, args, buffers)
            if was_run:
                return result
        leaves, structure = flatten((args, kwargs))
        key = (self._inputs.key(leaves, structure), autocast)
        graph = self._graphs.get(key)
        if graph is not None:
            was_run, result = self._replay(graph, leaves, buffers)
            if was_run:
                return result
        self._counts["calls"] += 1
        positions = [index for index, leaf in enumerate(leaves) if self._inputs.is_static(leaf)]
        captured, result = self._capture.run(leaves, structure, positions, buffers)
        if captured is not None:
            # All of the key, if every argument is a tensor that the graph reads from memory.
            is_plain = not kwargs and len(positions) == len(args)
            self._keep(_Graph(key, captured, ArgumentKinds(args) if is_plain else None, autocast))
        return result

    def _find(self, args: tuple[Any, ...], autocast: torch.dtype | None) -> _Graph | None:
        """The graph of a call whose arguments are plain tensors, with no look at anything else.

        The one of the last call first: most calls are like it.
        """
        last = self._last
        if last is not None and last.serves(args, autocast):
            return last
        for graph in self._graphs.values():
            if graph is not last and graph.serves(args, autocast):
                return graph
        return None

    def _replay(self, graph: _Graph, leaves: Sequence[Any], buffers: int) -> tuple[bool, Any]:
        was_run, result = graph.captured.run(leaves, buffers)
        if was_run:
            self._counts["calls"] += 1
            self._counts["replays"] += 1
            self._mark_used(graph)
        else:
            del self._graphs[graph.key]
        return was_run, result

    def _keep(self, graph: _Graph) -> None:
        while len(self._graphs) >= self._max_graphs:
            oldest = min(self._graphs.values(), key=operator.attrgetter("last_used"))
            del self._graphs[oldest.key]
            oldest.captured.drop()
        self._graphs[graph.key] = graph
        self._mark_used(graph)
        self._counts["captures"] += 1

    def _mark_used(self, graph: _Graph) -> None:
        graph.last_used = self._counts["calls"]
        if self._last is not graph:
            self._last = graph

    def _run_program(self, *args: Any, **kwargs: Any) -> Any:
        dtype = _autocast(self._device.type)
        if dtype is None:
            return self.program(*args, **kwargs)
        # A graph must not read weights that autocast has cast, and keeps until its end, in an earlier run.
        with torch.autocast(self._device.type, dtype=dtype, cache_enabled=False):
            return self.program(*args, **kwargs)

    @property
    def graph_inputs(self) -> tuple[Any, ...] | None:
        """Static positional arguments of the last call's graph; None before there was one.

        Write new data into these and call with them: nothing is copied.
        """
        last = self._last
        return None if last is None else last.captured.inputs.arguments[0]

    def stats(self) -> dict[str, int]:
        """How often what has happened: ``calls``, ``captures``, ``replays``; and ``graphs`` that are kept."""
        return {**self._counts, "graphs": len(self._graphs)}

    def close(self) -> None:
        """Let go of all graphs when their work is done: now, or when the call that runs has ended.

        Calls run the program itself from now on.
        """
        self._closed = True
        self._gate.defer(self._drop_all)

    def _drop_all(self) -> None:
        self._last = None
        while self._graphs:
            self._graphs.popitem()[1].captured.drop()


@dataclass(eq=False)
class _Graph:
    """A captured program, and the calls that it serves."""

    key: Hashable
    captured: CapturedProgram
    kinds: ArgumentKinds | None
    autocast: torch.dtype | None
    last_used: int = 0

    def serves(self, args: tuple[Any, ...], autocast: torch.dtype | None) -> bool:
        return self.kinds is not None and self.autocast is autocast and self.kinds.fit(args)


class _BakedState:
    """What graphs have baked in besides a call's arguments: engines' modes, where parameters and buffers lie.

    Parameters
    ----------
    program : torch.nn.Module
        Parameters and buffers that are replaced or moved are noticed; submodules that are replaced are not.
    modules : sequence of TRTModule
        Its engines.
    """

    def __init__(self, program: torch.nn.Module, modules: Sequence[TRTModule]) -> None:
        self._tables = [
            table for module in program.modules() for table in (module._parameters, module._buffers) if table
        ]
        self._executors = [module.executors for module in modules]
        self.found = self._look()

    def look(self) -> _Found | None:
        """Return what is there now if it differs from `found`."""
        now, before = self._look(), self.found
        if now.addresses == before.addresses and all(map(operator.is_, now.objects, before.objects)):
            return None
        return now

    def _look(self) -> _Found:
        tensors = [tensor for table in self._tables for tensor in table.values() if tensor is not None]
        modes = [executors.modes for executors in self._executors]
        buffers = min(each.pre_allocated_outputs for each in modes)
        return _Found([*tensors, *modes], [tensor.data_ptr() for tensor in tensors], buffers)


class _Found(NamedTuple):
    """A state. It holds the objects, so that no other object gets the address of one that is compared."""

    objects: list[Any]
    addresses: list[int]
    buffers: int  # sets of pre-allocated outputs: as many as every engine has


def _autocast(device_type: str) -> torch.dtype | None:
    """The dtype that the caller's autocast computes in; None if it is off."""
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
