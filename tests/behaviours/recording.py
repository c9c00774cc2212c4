"""A backend that notes every call to an execution context, and lets calls fail when a test wants it.

It stands at the contract between trt_rt and TensorRT, so it works with every backend and knows nothing of
how trt_rt is made.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import trt_rt

__all__ = ["Calls", "recorded"]

# What a method returns when it refuses; for most it is False.
_REFUSALS: dict[str, Any] = {"infer_shapes": ["an input"]}


class Calls:
    """What was asked of the contexts of a recorded backend.

    Attributes
    ----------
    made : list of (str, tuple)
        Methods and their arguments, in order.
    """

    def __init__(self) -> None:
        self.made: list[tuple[str, tuple[Any, ...]]] = []
        self._failing: str | None = None
        self._error: BaseException | None = None
        self._refused = 0

    def count(self) -> Counter[str]:
        """How often each method was called."""
        return Counter(name for name, _ in self.made)

    def arguments(self, method: str) -> list[tuple[Any, ...]]:
        """With what `method` was called, each time."""
        return [arguments for name, arguments in self.made if name == method]

    @contextmanager
    def failing(self, method: str, error: BaseException | None = None) -> Iterator[None]:
        """Let every call of `method` be refused, or raise `error`, and check that there was one."""
        self._failing, self._error, self._refused = method, error, 0
        try:
            yield
        finally:
            self._failing = None
        assert self._refused, f"{method} was not called, so nothing was tested"

    def call(self, name: str, method: Any, *arguments: Any) -> Any:
        """Call `make`, which tests replace. No frame of an error's traceback keeps the method."""
        held = [method]
        del method
        return self.make(name, held.pop(), arguments)

    def make(self, name: str, method: Any, arguments: tuple[Any, ...]) -> Any:
        """Note a call, and make or refuse it."""
        self.made.append((name, arguments))
        if name != self._failing:
            return method(*arguments)
        self._refused += 1
        if self._error is not None:
            del method  # the traceback would keep it, and the context with it
            raise self._error
        return _REFUSALS.get(name, False)


class _RecordedContext:
    def __init__(self, context: Any, calls: Calls) -> None:
        self._context = context
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._context, name)
        # No closure: the traceback of an error would keep that, and the context with it.
        return partial(self._calls.call, name, value) if callable(value) else value


def recorded(backend: trt_rt.Backend) -> tuple[trt_rt.Backend, Calls]:
    """A backend like `backend` whose contexts are recorded, and the record."""
    calls = Calls()
    recording = copy.copy(backend)

    def create_context(engine: Any, name: str, **options: Any) -> Any:
        return _RecordedContext(backend.create_context(engine, name, **options), calls)

    recording.create_context = create_context  # type: ignore[method-assign]
    return recording, calls
