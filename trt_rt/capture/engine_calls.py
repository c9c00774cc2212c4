"""A record of the engine calls that one run of a program makes on this thread."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from trt_rt._core.call import Executor
from trt_rt._core.critical import between
from trt_rt._core.shared_memory import memory_of
from trt_rt.capture.stream import CaptureStream, run_on
from trt_rt.module import TRTModule
from trt_rt.module.hooks import remove_forward_hooks

__all__ = ["EngineCalls", "current_executors", "take_executors"]

Result = TypeVar("Result")


class EngineCalls:
    """Follows the engine calls of a program on one thread, and gives each call an execution context.

    A captured context must not be modified, so an engine that a program calls several times needs one
    context for each call. The n-th call of an engine in a run goes to the n-th stream of a list. Each stream
    has an executor of its own in the engine's pool. Events keep the streams in the order of the program.

    Parameters
    ----------
    modules : sequence of TRTModule
        The program's engines.
    streams : list of CaptureStream
        The program's own stream first. More streams are appended when they are needed. Empty on a CPU,
        where no streams are switched.

    Attributes
    ----------
    written : set of int
        `memory_of` the arguments that engines wrote into in the last run.
    """

    def __init__(self, modules: Sequence[TRTModule], streams: list[CaptureStream]) -> None:
        self._modules = modules
        self._streams = streams
        self._thread = threading.get_ident()
        self._counts: Counter[TRTModule] = Counter()
        self._active: list[int] = []
        self.written: set[int] = set()

    def follow(self, program: Callable[[], Result]) -> Result:
        """Run the program once, and follow its calls.

        Parameters
        ----------
        program : callable
            Without arguments.

        Returns
        -------
        object
            What the program returns.
        """
        return between(self._begin, program, self._end)

    def _begin(self) -> None:
        self._counts.clear()
        self._active.clear()
        self.written.clear()
        for module in self._modules:
            module.register_forward_pre_hook(self._before, with_kwargs=True)
            module.register_forward_hook(self._after, always_call=True)

    def _end(self) -> None:
        # By value: an interrupt may have lost the handle of a hook that was registered.
        for module in self._modules:
            remove_forward_hooks(module, self._before, self._after)

    def _before(self, module: TRTModule, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        # PyTorch adds a hook before it notes that the hook takes keywords, so that calls of other threads
        # may give none.
        if kwargs is None or threading.get_ident() != self._thread:
            return
        self._note_writes(module, args, kwargs)
        turn = self._counts[module]
        self._counts[module] += 1
        self._active.append(turn)
        if self._streams and turn > 0:
            if turn == len(self._streams):
                self._streams.append(CaptureStream(module.engine.device))
            self._streams[turn].stream.wait_stream(self._streams[0].stream)
            torch.cuda.set_stream(self._streams[turn].stream)

    def _after(self, module: TRTModule, args: tuple[Any, ...], output: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        turn = self._active.pop()
        if self._streams and turn > 0:
            torch.cuda.set_stream(self._streams[0].stream)
            self._streams[0].stream.wait_stream(self._streams[turn].stream)

    def _note_writes(self, module: TRTModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember the memory of the arguments that the engine writes into, inputs and ``out=``."""
        names = set(module.aliased_io.values())
        inputs = {**dict(zip(module.input_binding_names, args, strict=False)), **kwargs}
        out = kwargs.get("out")
        written = [value for name, value in inputs.items() if name in names]
        written += out if isinstance(out, (list, tuple)) else [out]
        self.written |= {memory_of(value) for value in written if isinstance(value, torch.Tensor)}

    @property
    def routes(self) -> list[tuple[TRTModule, torch.cuda.Stream]]:
        """The engines and streams of the last run's calls; empty on a CPU."""
        return [
            (module, each.stream) for module, count in self._counts.items() for each in self._streams[:count]
        ]


def current_executors(routes: Sequence[tuple[TRTModule, torch.cuda.Stream]]) -> list[Executor]:
    """Return the executor of each engine for each stream."""
    return [run_on(stream, module.executors.pool.current) for module, stream in routes]


def take_executors(routes: Sequence[tuple[TRTModule, torch.cuda.Stream]]) -> list[Executor | None]:
    """Take these executors out of their pools, so that no other call uses them; None for a missing one."""
    return [run_on(stream, module.executors.take) for module, stream in routes]
