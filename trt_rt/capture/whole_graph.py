"""A program of engines and PyTorch operators that is run as one CUDA graph."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, cast

import torch

from trt_rt._core.autograd_modes import in_inference_mode, without_grad
from trt_rt._core.call import ProgramReplays, ProgramState, StreamSequence, WholeGraphCallBase
from trt_rt._core.critical import Gate, between, complete
from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt.capture.captured_program import CapturedProgram
from trt_rt.capture.inputs import ProgramInputs, flatten
from trt_rt.capture.program_capture import ProgramCapture
from trt_rt.engine.contexts import warn_of_streaming
from trt_rt.module import TRTModule
from trt_rt.module.hooks import hooks_of

__all__ = ["WholeGraph"]


_SWITCH_CACHE_OFF = partial(torch.set_autocast_cache_enabled, False)
_SWITCH_CACHE_ON = partial(torch.set_autocast_cache_enabled, True)


class WholeGraph(WholeGraphCallBase, torch.nn.Module):
    """A program whose calls replay one CUDA graph each. `enable_cudagraphs` creates it.

    A CPU has no CUDA graphs. There, each call runs the program itself on the same static tensors.

    Parameters
    ----------
    program : torch.nn.Module
        The program.
    modules : sequence of TRTModule
        The engines of the program, all on one device.
    max_graphs : int
        The number of graphs that are kept. Beyond it, the least recently used graph is dropped.
    frozen : bool, optional
        Whether the program's parameters and buffers keep their memory, so that calls need not check them.
        Their values may change in place.

    Attributes
    ----------
    program : torch.nn.Module
        The program.

    Notes
    -----
    One graph serves all calls whose tensors have the same shapes, dtypes, devices and strides, and whose
    other arguments are equal. The first such call runs the program on static copies of its inputs. Then it
    captures the program: the program's Python code runs a second time, and the device executes nothing.
    Later calls copy their inputs to the static ones and launch the graph, and the program's Python code does
    not run. If the program writes into its arguments, the caller's arguments get the new values.

    Calls from several threads and streams run one after the other, because they share static tensors.
    Outputs never require grad.
    """

    def __init__(
        self,
        program: torch.nn.Module,
        modules: Sequence[TRTModule],
        max_graphs: int,
        *,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.program = program
        self._engines = tuple(modules)
        self._max_graphs = max_graphs
        self._device = modules[0].engine.device
        self._inputs = ProgramInputs(self._device)
        self._sequence = StreamSequence(self._device)
        self._capture = ProgramCapture(self._run_program, self._engines, self._device, self._sequence)
        self._graphs: dict[Hashable, CapturedProgram] = {}
        self._gate = Gate("a program that is run as one CUDA graph was called from within its own call.")
        self._closed = False
        self._captures = 0
        self._ring_size = 0  # sets of pre-allocated outputs: the smallest number that an engine has
        engines = dict.fromkeys(module.engine for module in modules)
        # Every call checks these, so engines without streamable weights are left out.
        self._streamable = [engine for engine in engines if engine.streamable_weights_size]
        self._has_warned = False
        self._state = ProgramState(
            [] if frozen else _tables(program),
            [
                *[module.executors.mode_cell for module in modules],
                *[engine.weight_budget.cell for engine in self._streamable],
            ],
        )
        # Serves calls with plain tensors in C; all other calls come to `forward`.
        self._replays = ProgramReplays(self._gate, self._sequence, self._state)
        self._connect(self._replays, hooks_of(self))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program on the caller's current stream.

        Parameters
        ----------
        *args, **kwargs
            The program's arguments: tensors, numbers and strings, in lists, tuples and dicts.

        Returns
        -------
        object
            The program's result. Its tensors are new, and valid in the order of the stream. If every engine
            has pre-allocated outputs, their memory is reused.

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
        infers = torch.is_inference_mode_enabled()
        call = partial(self._call_in_turn, args, kwargs, infers)
        if not infers:
            return self._gate.run(call)
        return in_inference_mode(False, partial(self._gate.run, call))

    def _call_in_turn(self, args: tuple[Any, ...], kwargs: dict[str, Any], infers: bool) -> Any:
        return without_grad(partial(self._call_in_order, args, kwargs, infers))

    def _call_in_order(self, args: tuple[Any, ...], kwargs: dict[str, Any], infers: bool) -> Any:
        self._sequence.begin()
        try:
            return self._call(args, kwargs, infers)
        finally:
            complete(self._sequence.end)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any], infers: bool) -> Any:
        if not self._state.is_same():
            self._drop_all()
            self._state.look()  # after the drop: an interrupt between them must not keep outdated graphs
            self._ring_size = min(module.executors.modes.pre_allocated_outputs for module in self._engines)
        if self._streams_weights():
            return self._call_without_graph(args, kwargs, infers)
        leaves, structure = flatten((args, kwargs))
        key = (self._inputs.key(leaves, structure), _autocast(self._device.type))
        captured = self._graphs.get(key)
        if captured is not None:
            with plain_pytorch():
                was_run, result = captured.run(leaves, self._ring_size)
            if was_run:
                self._replays.calls += 1
                self._replays.replays += 1
                captured.graph.last_used = self._replays.calls
                return result
            self._forget(key)
        if self._capture.attempts.are_over:
            return self._call_without_graph(args, kwargs, infers)
        self._replays.calls += 1
        positions = [index for index, leaf in enumerate(leaves) if self._inputs.is_static(leaf)]
        # The autocast dtype is part of the key, but the core does not compare it.
        is_plain = (
            not kwargs
            and key[1] is None
            and len(positions) == len(args)
            and all(isinstance(value, torch.Tensor) for value in args)
        )
        # The program runs on static tensors, so modes and transforms around this call must not reach it.
        with plain_pytorch():
            captured, result = self._capture.run(
                leaves, structure, positions, self._ring_size, is_plain=is_plain
            )
        if captured is not None:
            self._keep(key, captured)
        return result

    def _streams_weights(self) -> bool:
        streaming = next((engine for engine in self._streamable if engine.weight_budget.streams), None)
        if streaming is not None and not self._has_warned:
            self._has_warned = True
            warn_of_streaming(streaming.name)
        return streaming is not None

    def _call_without_graph(self, args: tuple[Any, ...], kwargs: dict[str, Any], infers: bool) -> Any:
        self._replays.calls += 1
        return in_inference_mode(infers, partial(self.program, *args, **kwargs))

    def _keep(self, key: Hashable, captured: CapturedProgram) -> None:
        while len(self._graphs) >= self._max_graphs:
            oldest = min(self._graphs, key=lambda each: self._graphs[each].graph.last_used)
            self._forget(oldest).drop()
        captured.graph.last_used = self._replays.calls
        self._graphs[key] = captured
        self._captures += 1
        self._offer()

    def _forget(self, key: Hashable) -> CapturedProgram:
        captured = self._graphs.pop(key)
        self._offer()
        return captured

    def _offer(self) -> None:
        """Give the core the graphs with which it can serve calls."""
        graphs = [captured.graph for captured in self._graphs.values()]
        self._replays.graphs = [graph for graph in graphs if graph.serves_plain_calls]

    def _run_program(self, *args: Any, **kwargs: Any) -> Any:
        if _autocast(self._device.type) is None or not torch.is_autocast_cache_enabled():
            return self.program(*args, **kwargs)
        # Autocast caches the weights that it has cast until its context ends. A graph must not read them
        # from the cache of an earlier run, because their memory is freed with it.
        return between(_SWITCH_CACHE_OFF, partial(self.program, *args, **kwargs), _SWITCH_CACHE_ON)

    @property
    def graph_inputs(self) -> tuple[Any, ...] | None:
        """The static positional arguments of the last call's graph; None before the first graph.

        Write new data into these tensors and call with them; then nothing is copied.
        """
        if not self._graphs:
            return None
        last = max(self._graphs.values(), key=lambda captured: captured.graph.last_used)
        return last.inputs.for_callers

    def stats(self) -> dict[str, int]:
        """Return counters of what has happened since graphs were switched on.

        Returns
        -------
        dict
            ``calls``; ``captures`` and ``replays`` of graphs; ``invalidated_captures``: captures that CUDA
            has ended, usually because another thread waited for the device; ``graphs``: graphs that are kept.
        """
        return {
            "calls": self._replays.calls,
            "captures": self._captures,
            "replays": self._replays.replays,
            "invalidated_captures": self._capture.attempts.invalidated,
            "graphs": len(self._graphs),
        }

    def reason_without_graph(self) -> str:
        """Return why calls run the program without a graph now; "" if they get one."""
        if self._closed:
            return "the enable_cudagraphs that made it was left"
        if any(engine.weight_budget.streams for engine in self._streamable):
            return "an engine streams weights, for which TensorRT waits for the device"
        if self._capture.attempts.are_over:
            return "CUDA invalidated too many captures in succession"
        if self._device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return "the caller captures the current stream"
        return ""

    def close(self) -> None:
        """Drop all graphs after their work is done: now, or at the end of a running call.

        From now on, calls run the program itself.
        """
        self._closed = True
        self._gate.defer(self._drop_all)

    def _drop_all(self) -> None:
        self._replays.graphs = []
        while self._graphs:
            self._graphs.popitem()[1].drop()


def _tables(program: torch.nn.Module) -> list[dict[str, torch.Tensor | None]]:
    """Return each module's dicts of parameters and buffers. A submodule that is replaced later is missed."""
    tables: list[dict[str, torch.Tensor | None]] = []
    for module in program.modules():
        tables += [cast("dict[str, torch.Tensor | None]", module._parameters), module._buffers]
    return [table for table in tables if table]


def _autocast(device_type: str) -> torch.dtype | None:
    """Return the dtype that the caller's autocast computes in; None if autocast is off."""
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
