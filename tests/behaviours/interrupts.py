"""Ctrl-C at a chosen bytecode of the package, so that a test can try each of them.

CPython counts every bytecode that a traced frame is about to run. The interrupt comes before a given one of
them, in a frame of trt_rt or of the standard library's context managers and weak sets, which trt_rt uses.
"""

from __future__ import annotations

import _thread
import contextlib
import gc
import os
import signal
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import trt_rt

__all__ = ["KINDS", "Interrupter", "spread"]

KINDS = ("signal", "exception")

# Of the package, and of the calls that it generates.
_FOLDERS = (str(Path(trt_rt.__file__).parent), "<trt_rt program>")
_REFERENCE = f"{_FOLDERS[0]}/reference/"
_FILES = frozenset(module.__file__ for module in (contextlib, weakref, sys.modules["_weakrefset"]))


# How many bytecodes of each scenario are interrupted, and in addition a quarter as many of the reference
# backend; with "all" all of them, which takes long.
_TRIED = os.environ.get("TRT_RT_INTERRUPTS", "24")


def spread(counted: Sequence[bool]) -> Sequence[int]:
    """Return the numbers of the bytecodes to interrupt, for `Interrupter.counted` of an uninterrupted run."""
    if _TRIED == "all":
        return range(1, len(counted) + 1)
    own = [n for n, is_reference in enumerate(counted, 1) if not is_reference]
    others = [n for n, is_reference in enumerate(counted, 1) if is_reference]
    return [*_evenly(own, int(_TRIED)), *_evenly(others, int(_TRIED) // 4)]


def _evenly(numbers: Sequence[int], count: int) -> Sequence[int]:
    return numbers[:: -(-len(numbers) // count)] if numbers else ()


class _StopTracing:
    __getitem__ = sys.settrace


class _Signal:
    __getitem__ = _thread.interrupt_main


# Subscripting is the one way to call a C function after which CPython does not look for signals, so that a
# signal set by the trace function waits for the next place in the traced code where it does.
_stop_tracing = _StopTracing()
_signal = _Signal()


class Interrupter:
    """Runs code, and interrupts it before the n-th bytecode.

    Parameters
    ----------
    kind : str
        "signal": SIGINT arrives then, and CPython raises KeyboardInterrupt at the next place where it looks
        for signals. "exception": KeyboardInterrupt is raised there and then, also between bytecodes where
        CPython never looks. What survives this depends on no detail of CPython's.
    n : int
        From 1; 0 to count the bytecodes only.

    Attributes
    ----------
    counted : list of bool
        For each bytecode that was reached, whether it belongs to the reference backend.
    fired : bool
        Whether the n-th bytecode was reached.
    raised : bool
        Whether the code ended with KeyboardInterrupt.
    place : str
        Where the interrupt came, for messages.
    """

    def __init__(self, kind: str, n: int) -> None:
        self._n = n
        self.counted: list[bool] = []
        self._raises = kind == "exception"
        self.fired = False
        self.raised = False
        self.place = "nowhere"

    def run(self, code: Callable[[], object]) -> None:
        """Run `code` on the main thread, whatever it raises.

        The garbage collector is off: finalizers of what other tests have left would add bytecodes, and Python
        drops an exception that is raised in a finalizer.
        """
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            try:
                sys.settrace(self._enter_frame)
                code()
            finally:
                sys.settrace(None)
            self._let_signals_in()
        except KeyboardInterrupt:
            self.raised = True
        finally:
            signal.signal(signal.SIGINT, before)
            if was_enabled:
                gc.enable()

    def _let_signals_in(self) -> None:
        for _ in range(3):
            pass

    def _enter_frame(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(_FOLDERS) and (name not in _FILES or self._is_of_others(frame)):
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._trace

    def _is_of_others(self, frame: FrameType) -> bool:
        """Whether a frame of contextlib enters or leaves a context manager of PyTorch's."""
        generator = getattr(frame.f_locals.get("self"), "gen", None)
        return generator is not None and not generator.gi_code.co_filename.startswith(_FOLDERS)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        # A bytecode without a line is CPython's own: no signal is looked for there.
        if event != "opcode" or frame.f_lineno is None:
            return self._trace
        self.counted.append(frame.f_code.co_filename.startswith(_REFERENCE))
        if len(self.counted) != self._n:
            return self._trace
        self.fired = True
        self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} ({frame.f_code.co_qualname})"
        if self._raises:
            raise KeyboardInterrupt
        _stop_tracing[None]
        _signal[signal.SIGINT]
        return self._trace
