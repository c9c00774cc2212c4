"""A program of engines and PyTorch operators that is run as one CUDA graph."""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from trt_rt.errors import ExecutionError
from trt_rt.module import TRTModule
from trt_rt.runtime.captured_program import CapturedProgram
from trt_rt.runtime.program_capture import ProgramCapture
from trt_rt.runtime.program_inputs import ProgramInputs, flatten
from trt_rt.runtime.stream_sequence import StreamSequence

__all__ = ["WholeGraph"]


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
        self._graphs: OrderedDict[Hashable, CapturedProgram] = OrderedDict()
        self._last: CapturedProgram | None = None
        self._lock = threading.Lock()
        self._caller: int | None = None
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
        leaves, structure = flatten((args, kwargs))
        with self._one_call(), torch.inference_mode(False), torch.no_grad():
            return self._call(leaves, structure)

    def _call(self, leaves: list[Any], structure: Hashable) -> Any:
        key = (self._inputs.key(leaves, structure), _autocast(self._device.type))
        if self._state.has_changed():
            self._drop_all()
        self._counts["calls"] += 1
        buffers = min(module.executors.modes.pre_allocated_outputs for module in self._engines)
        captured = self._graphs.get(key)
        if captured is not None:
            was_run, result = captured.run(leaves, buffers)
            if was_run:
                self._graphs.move_to_end(key)
                self._counts["replays"] += 1
                self._last = captured
                return result
            del self._graphs[key]
        positions = [index for index, leaf in enumerate(leaves) if self._inputs.is_static(leaf)]
        captured, result = self._capture.run(leaves, structure, positions, buffers)
        if captured is not None:
            self._keep(key, captured)
        return result

    def _keep(self, key: Hashable, captured: CapturedProgram) -> None:
        while len(self._graphs) >= self._max_graphs:
            _, oldest = self._graphs.popitem(last=False)
            oldest.drop()
        self._graphs[key] = captured
        self._last = captured
        self._counts["captures"] += 1

    @contextmanager
    def _one_call(self) -> Iterator[None]:
        if self._caller == threading.get_ident():
            raise ExecutionError(
                "a program that is run as one CUDA graph was called from within its own call."
            )
        with self._lock:
            self._caller = threading.get_ident()
            try:
                self._sequence.begin()
                yield
            finally:
                self._sequence.end()
                self._caller = None
                if self._closed:  # by the program itself, or by a finalizer meanwhile
                    self._drop_all()

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
        return None if last is None else last.inputs.arguments[0]

    def stats(self) -> dict[str, int]:
        """How often what has happened: ``calls``, ``captures``, ``replays``; and ``graphs`` that are kept."""
        return {**self._counts, "graphs": len(self._graphs)}

    def close(self) -> None:
        """Wait for work in flight and let go of all graphs. Calls run the program itself from now on."""
        self._closed = True
        if self._caller != threading.get_ident():  # else the call lets go of them when it is done
            with self._lock:
                self._drop_all()

    def _drop_all(self) -> None:
        self._last = None
        while self._graphs:
            self._graphs.popitem()[1].drop()


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
        self._modules = tuple(modules)
        self._tables = [
            table for module in program.modules() for table in (module._parameters, module._buffers) if table
        ]
        self._objects: list[Any] = []
        self._addresses: list[int] | None = None  # unlike any list: the first question notes all
        self.has_changed()

    def has_changed(self) -> bool:
        """Whether something differs from the last time that this was asked."""
        tensors = [tensor for table in self._tables for tensor in table.values() if tensor is not None]
        objects = [*tensors, *[module.executors.modes for module in self._modules]]
        addresses = [tensor.data_ptr() for tensor in tensors]
        if addresses == self._addresses and all(map(operator.is_, objects, self._objects)):
            return False
        # Held, so that no other object comes to lie at the address of one that was compared.
        self._objects, self._addresses = objects, addresses
        return True


def _autocast(device_type: str) -> torch.dtype | None:
    """The dtype that the caller's autocast computes in; None if it is off."""
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
