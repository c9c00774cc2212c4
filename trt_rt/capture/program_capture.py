"""Runs a program for one call, and captures it for later calls."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from torch.utils import _pytree as pytree

from trt_rt._core.call import Executor, ProgramGraph, StreamSequence
from trt_rt._core.capture_attempts import CaptureAttempts, CaptureInvalidatedError
from trt_rt._core.capture_memory import CaptureMemory
from trt_rt._core.critical import Gate, between, run_holding
from trt_rt._core.garbage_collection import without_garbage_collection
from trt_rt.capture.captured_program import CapturedProgram
from trt_rt.capture.engine_calls import EngineCalls, current_executors, take_executors
from trt_rt.capture.host_run import HostRun
from trt_rt.capture.observing import observing
from trt_rt.capture.outputs import ProgramOutputs
from trt_rt.capture.random_capture import capture_in
from trt_rt.capture.random_numbers import SeesRandomNumbers
from trt_rt.capture.static_inputs import StaticInputs
from trt_rt.capture.stream import CaptureStream, run_on
from trt_rt.errors import ExecutionError, TRTError
from trt_rt.module import TRTModule

__all__ = ["ProgramCapture"]

# PyTorch's random number generator follows one capture at a time.
_capturing = Gate()


class ProgramCapture:
    """Creates a `CapturedProgram` for each kind of call of one program.

    Parameters
    ----------
    program : callable
        The program.
    modules : sequence of TRTModule
        The engines of the program.
    device : torch.device
        The device of the engines.
    sequence : StreamSequence
        Orders the program's calls.

    Attributes
    ----------
    attempts : CaptureAttempts
        The failed attempts to capture, of all kinds of calls.
    """

    def __init__(
        self,
        program: Callable[..., Any],
        modules: Sequence[TRTModule],
        device: torch.device,
        sequence: StreamSequence,
    ) -> None:
        self._program = program
        self._modules = tuple(modules)
        self._device = device
        self._sequence = sequence
        self.attempts = CaptureAttempts("a program")
        # One stream for each call that a run makes of the same engine. The first one also runs the program.
        self._streams = [CaptureStream(device)] if device.type == "cuda" else []

    def run(
        self,
        leaves: Sequence[Any],
        structure: Any,
        positions: Sequence[int],
        buffers: int,
        *,
        is_plain: bool,
    ) -> tuple[CapturedProgram | None, Any]:
        """Run the program once with a call's arguments, and capture it.

        TensorRT and PyTorch require a run before the capture. That run gives the call's results, so state
        that the program keeps in buffers advances by one step, not two.

        Parameters
        ----------
        leaves, structure, positions
            As for `StaticInputs`.
        buffers : int
            As for `CapturedProgram.run`.
        is_plain : bool
            Whether all arguments are positional tensors.

        Returns
        -------
        tuple of (CapturedProgram or None, object)
            The captured program, and the program's result. The first is None if another thread changed an
            engine meanwhile, or CUDA invalidated the capture. The next call then tries again.

        Raises
        ------
        ExecutionError
            If the run succeeded, but PyTorch or CUDA refuses to capture it. State that the program keeps has
            advanced by one step.
        Exception
            Any exception of the program.
        """
        if not self._streams:
            return self._record_on_cpu(leaves, structure, positions, buffers, is_plain)
        current = torch.cuda.current_stream(self._device)
        stream = self._streams[0].stream

        def run() -> tuple[CapturedProgram | None, Any]:
            random_numbers = SeesRandomNumbers()
            inputs, calls, result = observing(
                random_numbers, partial(self._run_on_static, leaves, structure, positions)
            )
            inputs.write_back(leaves)
            capture = partial(self._capture, inputs, calls, buffers, is_plain, random_numbers.seen)
            return self._try(capture), result

        captured, result = between(
            partial(stream.wait_stream, current),
            partial(run_on, stream, run),
            partial(current.wait_stream, stream),  # the caller may free the arguments' memory now
        )
        outputs = ProgramOutputs(result) if captured is None else captured.outputs
        outputs.take(result)
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.is_cuda:
                tensor.record_stream(current)
        return captured, outputs.fresh() if captured is None else captured.hand_over(buffers)

    def _record_on_cpu(
        self,
        leaves: Sequence[Any],
        structure: Any,
        positions: Sequence[int],
        buffers: int,
        is_plain: bool,
    ) -> tuple[CapturedProgram | None, Any]:
        inputs, _, result = self._run_on_static(leaves, structure, positions)
        inputs.write_back(leaves)
        outputs = ProgramOutputs(pytree.tree_map_only(torch.Tensor, torch.clone, result))
        captured = self._try(partial(self._host_graph, inputs, outputs, buffers, is_plain))
        return captured, outputs.fresh() if captured is None else captured.hand_over(buffers)

    def _try(self, capture: Callable[[], CapturedProgram | None]) -> CapturedProgram | None:
        """Return what `capture` returns; None if CUDA invalidates the capture."""
        try:
            captured = capture()
        except CaptureInvalidatedError as error:
            self.attempts.note_invalidated(error)
            return None
        if captured is not None:
            self.attempts.note_captured()
        return captured

    def _host_graph(
        self, inputs: StaticInputs, outputs: ProgramOutputs, buffers: int, is_plain: bool
    ) -> CapturedProgram:
        args, kwargs = inputs.arguments
        run = HostRun(partial(self._program, *args, **kwargs), outputs)
        graph = ProgramGraph(self._sequence, run.repeat, run.take_other_results)
        if is_plain and not inputs.are_written:
            graph.copy_arguments(args)
            graph.copy_results(outputs.tensors, outputs.assemble, buffers)
        return CapturedProgram(inputs, outputs, graph, graph.replay, run.take_other_results, self._sequence)

    def _run_on_static(
        self, leaves: Sequence[Any], structure: Any, positions: Sequence[int]
    ) -> tuple[StaticInputs, EngineCalls, Any]:
        inputs = StaticInputs(leaves, structure, positions)
        inputs.fill(leaves)
        inputs.watch()
        calls = EngineCalls(self._modules, self._streams)
        args, kwargs = inputs.arguments
        result = calls.follow(partial(self._program, *args, **kwargs))
        inputs.refuse_replaced((args, kwargs))
        inputs.note_writes(calls.written)
        inputs.refuse_shared_memory(leaves)
        return inputs, calls, result

    def _capture(
        self,
        inputs: StaticInputs,
        calls: EngineCalls,
        buffers: int,
        is_plain: bool,
        uses_random_numbers: bool,
    ) -> CapturedProgram | None:
        routes = calls.routes
        if any(module.executors.uses_cuda_graphs for module, _ in routes):
            return None  # an engine's own graphs were switched on meanwhile: other contexts have run
        expected = current_executors(routes)
        # Weak references, so that another thread can free the contexts to change the engine.
        contexts = _references([executor.context for executor in expected])
        if None in contexts:
            return None  # another thread has freed a context since the run
        failure = captured = None
        try:
            if uses_random_numbers:
                captured = self._capture_with_random_numbers(inputs, calls)
            else:
                captured = self._capture_stream(inputs, calls, buffers, is_plain)
        except Exception as error:
            failure = error
        # The contexts belong to the graph now, so no other call may use them, also after a failure.
        taken = take_executors(routes)
        # Always in the same order, so that two captures over the same engines never wait for each other.
        engines = sorted({module.engine for module, _ in routes}, key=id)
        keep = partial(
            self._keep, captured if calls.routes == routes else None, routes, expected, taken, contexts
        )
        is_unchanged = run_holding([engine.context_users.gate for engine in engines], keep)
        if not is_unchanged:
            return None  # a change of an engine dropped a context, or another stream took over an executor
        if captured is not None and calls.routes == routes:
            return captured
        _refuse(failure)

    def _keep(
        self,
        captured: CapturedProgram | None,
        routes: Sequence[tuple[TRTModule, torch.cuda.Stream]],
        expected: Sequence[Executor],
        taken: Sequence[Executor | None],
        contexts: Sequence[weakref.ref[Any] | None],
    ) -> bool:
        """Give the contexts to the captured program, if they are still those that ran. Return whether."""
        if taken != expected or not all(map(_has_kept, expected, contexts)):
            return False
        if captured is not None:
            for (module, _), executor in zip(routes, expected, strict=True):
                captured.own(executor, module.engine.context_users)
        return True

    def _capture_stream(
        self, inputs: StaticInputs, calls: EngineCalls, buffers: int, is_plain: bool
    ) -> CapturedProgram:
        graph = ProgramGraph(self._sequence, None, None)
        args, kwargs = inputs.arguments
        copies_arguments = is_plain and not inputs.are_written
        if copies_arguments:
            graph.copy_arguments(args)
        capture = partial(
            self._capture_in_stream,
            graph,
            partial(self._program, *args, **kwargs),
            buffers if copies_arguments else None,
        )
        outputs, memory = calls.follow(partial(without_garbage_collection, capture))
        captured = CapturedProgram(inputs, outputs, graph, graph.replay, None, self._sequence)
        captured.memory = memory
        return captured

    def _capture_in_stream(
        self, graph: ProgramGraph, program: Callable[[], Any], buffers: int | None
    ) -> tuple[ProgramOutputs, CaptureMemory]:
        """Capture the work that the program enqueues on the current stream.

        PyTorch's own capture, ``torch.cuda.CUDAGraph``, takes over PyTorch's random number generator.
        During the capture, every random operation of another thread raises "Offset increment outside graph
        capture". So it is used only for programs that use random numbers.
        """
        memory = CaptureMemory(self._device)

        def run() -> ProgramOutputs:
            outputs = ProgramOutputs(memory.allocating(program))
            if buffers is not None:
                graph.copy_results(outputs.tensors, outputs.assemble, buffers)
            return outputs

        return graph.capture(torch.cuda.current_stream(self._device).cuda_stream, run), memory

    def _capture_with_random_numbers(self, inputs: StaticInputs, calls: EngineCalls) -> CapturedProgram:
        """Capture with PyTorch's own graph, which gives each replay other random numbers."""
        graph = torch.cuda.CUDAGraph()
        args, kwargs = inputs.arguments
        capture = partial(capture_in, graph, self._device, partial(self._program, *args, **kwargs))
        result = calls.follow(partial(_capturing.run, without_garbage_collection, capture))

        def repeat() -> bool:
            graph.replay()
            return True

        unused = ProgramGraph(self._sequence, None, None)
        return CapturedProgram(inputs, ProgramOutputs(result), unused, repeat, None, self._sequence)


def _references(contexts: Sequence[Any]) -> list[weakref.ref[Any] | None]:
    return [None if context is None else weakref.ref(context) for context in contexts]


def _has_kept(executor: Executor, context: weakref.ref[Any] | None) -> bool:
    return context is not None and executor.context is not None and executor.context is context()


def _refuse(failure: Exception | None) -> NoReturn:
    if isinstance(failure, (TRTError, torch.OutOfMemoryError)):
        raise failure
    if failure is None:
        reason = "it calls other engines when it is run again"
    else:
        reason = f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"
    raise ExecutionError(
        f"the program ran, but cannot be captured as one CUDA graph: {reason}. Call it outside of "
        "enable_cudagraphs, or give its engines graphs of their own with whole_graph=False."
    ) from failure
