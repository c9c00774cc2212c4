"""Collects the spans of one thread, with their times and what is within them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns
from typing import Any

from trt_rt.module.call_observer import Span

__all__ = ["SpanTree", "TimedSpan"]


@dataclass(eq=False)
class TimedSpan:
    """A span, and those within it.

    Attributes
    ----------
    span : Span
        What was done.
    us : float
        The time that it took on the host, in microseconds.
    within : list of TimedSpan
        In their order.
    last_call : dict or None
        Of a call: `Executor.last_call` when it had ended.
    """

    span: Span
    us: float = 0.0
    within: list[TimedSpan] = field(default_factory=list)
    last_call: dict[str, Any] | None = None

    def all(self, *kinds: str) -> Iterator[TimedSpan]:
        """Yield the spans within this one, at any depth, that are of some kinds."""
        for inner in self.within:
            if inner.span.kind in kinds:
                yield inner
            yield from inner.all(*kinds)


class SpanTree:
    """A listener that keeps the spans of the thread that has made it.

    Attributes
    ----------
    root : TimedSpan
        Has the thread's outermost spans within it.
    """

    def __init__(self) -> None:
        self.root = TimedSpan(Span("", ""))
        self._open = [self.root]
        self._thread = threading.get_ident()

    def begin(self, span: Span) -> Callable[[], object]:
        """Note a span of this thread."""
        if threading.get_ident() != self._thread:
            return _ignore
        timed = TimedSpan(span)
        self._open[-1].within.append(timed)
        self._open.append(timed)
        return partial(self._end, timed, perf_counter_ns())

    def _end(self, timed: TimedSpan, begin: int) -> None:
        timed.us = (perf_counter_ns() - begin) / 1000
        self._open.remove(timed)
        if timed.span.executor is not None:
            timed.last_call = timed.span.executor.last_call()


def _ignore() -> None:
    pass
