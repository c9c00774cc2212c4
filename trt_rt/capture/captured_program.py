"""One run of a program, recorded for calls with arguments of one kind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from trt_rt._core.call import Executor, ProgramGraph, StreamSequence
from trt_rt._core.capture_memory import CaptureMemory
from trt_rt._core.critical import Gate
from trt_rt.capture.outputs import ProgramOutputs
from trt_rt.capture.static_inputs import StaticInputs
from trt_rt.engine.context_users import ContextUsers

__all__ = ["CapturedProgram"]


class CapturedProgram:
    """A run that can be repeated: on a GPU a CUDA graph; on a CPU, where there are none, the program itself.

    On the CPU the program is run again on the same static inputs, so that all that surrounds graphs (keys,
    static tensors, eviction, mutators) runs and is tested there; nothing is gained by it.

    Calls with plain tensors are served by `graph` alone, without any of this. All other calls come here.

    Owns the execution contexts that were captured: an engine that is closed, or wants to be without contexts,
    closes or drops this in place of their executors.

    Parameters
    ----------
    inputs : StaticInputs
        What it reads.
    outputs : ProgramOutputs
        What it writes.
    graph : ProgramGraph
        What was captured.
    repeat : callable
        Enqueues the run on the current stream. Returns whether its results are in the static outputs.
    take_other_results : callable or None
        Returns the results of a run for which `repeat` returned False.
    sequence : StreamSequence
        Of the program's calls.
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
        self.memory: CaptureMemory | None = None  # of intermediate results, as long as the graph exists

    @property
    def gate(self) -> Gate:
        """Keeps calls out while contexts are dropped."""
        return self.graph.gate

    def __del__(self) -> None:
        # CUDA frees a graph that is in flight when it is done, but the contexts' memory goes at once.
        if self._executors and sys is not None and not sys.is_finalizing():
            with suppress(Exception):  # no one is left to tell
                self._sequence.wait()

    def own(self, executor: Executor, users: ContextUsers) -> None:
        """Take the place of an executor that was captured among the `users` of its engine's contexts."""
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
            Whether it was run, and what the program returns; not if what was captured is gone.

        Raises
        ------
        InputValueError
            If arguments share memory that the program writes into.
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
        """The outputs of the last run, as the caller is to get them."""
        if self.graph.gives_results:
            return self.graph.hand_over()
        return self.outputs.pre_allocated(buffers) if buffers else self.outputs.fresh()

    def drop(self) -> None:
        """Wait for the last run, and let go of all that was captured. Idempotent."""
        self.gate.run(self.drop_contexts)

    def drop_contexts(self) -> None:
        """As `ContextUser`: contexts that were captured cannot be made anew, so this is over for good."""
        if self._repeat is None:
            return
        self._sequence.wait()
        self.graph.drop()
        self._repeat = None
        self._executors = []

    def close(self) -> None:
        """As `ContextUser`."""
        self.drop()
