"""The captured run of a program, for calls with arguments of one kind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from trt_rt._core.call import Executor, ProgramGraph, StreamSequence
from trt_rt._core.callbacks import finalizer
from trt_rt._core.capture_memory import CaptureMemory
from trt_rt._core.critical import Gate
from trt_rt.capture.outputs import ProgramOutputs
from trt_rt.capture.static_inputs import StaticInputs
from trt_rt.engine.context_users import ContextUsers

__all__ = ["CapturedProgram"]


class CapturedProgram:
    """A run of a program that can be repeated: a CUDA graph on a GPU, the program itself on a CPU.

    On a CPU the program runs again on the same static inputs. This is not faster, but it runs and tests the
    code around the graph there: keys, static tensors, eviction, and changes of engines.

    `graph` alone serves calls with plain tensors. All other calls come to this object.

    This object owns the execution contexts that were captured. When an engine is closed or drops its
    contexts, it closes or drops this object in place of their executors.

    Parameters
    ----------
    inputs : StaticInputs
        The static inputs of the run.
    outputs : ProgramOutputs
        The static outputs of the run.
    graph : ProgramGraph
        The captured graph.
    repeat : callable
        Enqueues the run on the current stream. Returns whether its results are in the static outputs.
    take_other_results : callable or None
        Returns the results of a run for which `repeat` returned False.
    sequence : StreamSequence
        Orders the program's calls.
    """

    _executors: Sequence[Executor] = ()  # for `__del__` after an interrupt in `__init__`

    def __init__(
        self,
        inputs: StaticInputs,
        outputs: ProgramOutputs,
        graph: ProgramGraph,
        repeat: Callable[[], bool],
        take_other_results: Callable[[], Any] | None,
        sequence: StreamSequence,
    ) -> None:
        self._executors = []
        self.inputs = inputs
        self.outputs = outputs
        self.graph = graph
        self._repeat: Callable[[], bool] | None = repeat
        self._take_other_results = take_other_results
        self._sequence = sequence
        self.memory: CaptureMemory | None = None  # holds intermediate results while the graph exists

    @property
    def gate(self) -> Gate:
        """Keeps calls out while contexts are dropped."""
        return self.graph.gate

    @finalizer
    def __del__(self) -> None:
        # CUDA keeps a running graph until it is done. The contexts' memory is freed at once, so wait here.
        if self._executors and sys is not None and not sys.is_finalizing():
            with suppress(Exception):  # a finalizer has no caller that could handle it
                self._sequence.wait()

    def own(self, executor: Executor, users: ContextUsers) -> None:
        """Take the place of a captured executor among the `users` of its engine's contexts."""
        self._executors = [*self._executors, executor]
        users.replace(executor, self)

    def run(self, leaves: Sequence[Any], buffers: int) -> tuple[bool, Any]:
        """Repeat the run with a call's arguments.

        Parameters
        ----------
        leaves : sequence
            The arguments, flattened.
        buffers : int
            Sets of outputs that are reused in turn; 0 for new ones.

        Returns
        -------
        tuple of (bool, object)
            Whether the run was repeated, and its results. False if the captured contexts were dropped.

        Raises
        ------
        InputValueError
            If two arguments share memory that the program writes into.
        """
        return self.gate.run(self._run, leaves, buffers)

    def _run(self, leaves: Sequence[Any], buffers: int) -> tuple[bool, Any]:
        if self._repeat is None:
            return False, None
        self.inputs.refuse_shared_memory(leaves)
        self.inputs.fill(leaves)
        is_as_recorded = self._repeat()
        self.inputs.write_back(leaves)
        if not is_as_recorded and self._take_other_results is not None:
            return True, self._take_other_results()
        return True, self.hand_over(buffers)

    def hand_over(self, buffers: int) -> Any:
        """Return the outputs of the last run, in fresh or pre-allocated tensors."""
        if self.graph.gives_results:
            return self.graph.hand_over()
        return self.outputs.pre_allocated(buffers) if buffers else self.outputs.fresh()

    def drop(self) -> None:
        """Wait for the last run, and drop the graph and its contexts. Idempotent."""
        self.gate.run(self.drop_contexts)

    def drop_contexts(self) -> None:
        """As `ContextUser`. Captured contexts cannot be replaced, so no run is repeated after this."""
        if self._repeat is None:
            return
        self._sequence.wait()
        self.graph.drop()
        self._repeat = None
        self._executors = []

    def close(self) -> None:
        """As `ContextUser`."""
        self.drop()
