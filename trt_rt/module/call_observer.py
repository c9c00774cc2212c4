"""Puts listeners between an executor and TensorRT while calls are observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

from trt_rt._core.call import BoundCall, Executor
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor

__all__ = ["CallListener", "CallObserver", "Span"]

Result = TypeVar("Result")


@dataclass(eq=False)
class Span:
    """Something that a thread does from one moment to a later one. Spans of a thread are nested.

    Attributes
    ----------
    kind : str
        ``call``, ``bind`` or ``bound call``. Within these: ``copy`` and ``move`` of an argument, ``make
        context``, ``make graph context``, and the methods of TensorRT's execution context by their names.
        Around these: ``program``.
    engine : str
        The name of the engine; of a program, its class.
    detail : str
        What it is about: a tensor, or the shapes of a call.
    counts : dict
        Of a call, when it has ended: by how much each of `Executor.stats` has risen.
    error : str
        The name of the exception that has ended it; "" if none has.
    reason : str
        Why a copy is made; "" for other kinds.
    executor : Executor or None
        Of a call: what makes it.
    """

    kind: str
    engine: str
    detail: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    error: str = ""
    reason: str = ""
    executor: Executor | None = None

    @property
    def name(self) -> str:
        """A name for people, with what is known now."""
        kind = "call" if self.kind == "program" else self.kind
        return " ".join(word for word in (self.engine, self.served or kind, self.detail) if word)

    @property
    def served(self) -> str:
        """How a call was served, once it has returned: ``capture``, ``replay`` or ``enqueue``; else ""."""
        if self.kind not in ("call", "bound call", "program") or not self.counts or self.error:
            return ""
        if self.counts["captures"] or self.counts["invalidated_captures"]:
            return "capture"
        return "replay" if self.counts["replays"] else "enqueue"


class CallListener(Protocol):
    """Is told of spans."""

    def begin(self, span: Span) -> Callable[[], object]:
        """Note that a span begins on this thread; return what is called when it ends."""


class CallObserver:
    """Makes the calls of an engine's executors while listeners are told of them.

    Parameters
    ----------
    engine : str
        The name of the engine.
    listeners : tuple of CallListener
        Who is told.

    Notes
    -----
    Listeners run in the middle of calls, within the executor's gate. They must not call the engine.
    """

    def __init__(self, engine: str, listeners: tuple[CallListener, ...]) -> None:
        self._engine = engine
        self._listeners = listeners

    def call(self, executor: Executor, args: tuple[Any, ...], out: Any) -> Any:
        """Make a call."""
        return self._count(executor, self._span("call", _shapes(args)), executor.run_unobserved, args, out)

    def bind(self, executor: Executor, args: tuple[Any, ...], out: Any) -> BoundCall:
        """Bind a call."""
        return self._count(executor, self._span("bind", _shapes(args)), executor.bind_unobserved, args, out)

    def bound_call(self, executor: Executor, call: BoundCall) -> Any:
        """Make a bound call."""
        return self._count(executor, self._span("bound call", _shapes(call.inputs)), call.run_unobserved)

    def contexts(self, contexts: Any) -> ObservedContexts:
        """Return what takes the place of a factory of contexts."""
        return ObservedContexts(contexts, self)

    def context(self, context: Any) -> ObservedContext:
        """Return what takes the place of an execution context."""
        return ObservedContext(context, self)

    def copies(self, copy: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Return what takes the place of a function that copies an argument."""
        return self._argument_function("copy", copy)

    def moves(self, move: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Return what takes the place of a function that moves an argument to the engine's device."""
        return self._argument_function("move", move)

    def _argument_function(
        self, kind: str, function: Callable[..., torch.Tensor]
    ) -> Callable[..., torch.Tensor]:
        def observed(value: torch.Tensor, target: IOTensor, *rest: Any) -> torch.Tensor:
            span = Span(kind, self._engine, target.name, reason=_reason(kind, value))
            return self.run(span, function, value, target, *rest)

        observed.unobserved = function  # type: ignore[attr-defined]
        return observed

    def _span(self, kind: str, detail: str = "") -> Span:
        return Span(kind, self._engine, detail)

    def _count(self, executor: Executor, span: Span, function: Callable[..., Result], *args: Any) -> Result:
        before = executor.stats()
        span.executor = executor

        def run() -> Result:
            try:
                return function(*args)
            finally:
                span.counts = {name: count - before[name] for name, count in executor.stats().items()}

        return self.run(span, run)

    def run(self, span: Span, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function, and tell listeners of it."""
        ends: list[Callable[[], object]] = []
        try:
            for listener in self._listeners:
                ends.append(listener.begin(span))  # one by one: those that have begun must end
            return function(*args)
        except BaseException as error:
            span.error = type(error).__name__
            raise
        finally:
            for end in reversed(ends):
                end()

    def wrap(self, kind: str, detail: str, function: Callable[..., Result]) -> Callable[..., Result]:
        """Return a function that calls another, and tells listeners of it."""

        def observed(*args: Any) -> Result:
            return self.run(self._span(kind, detail), function, *args)

        return observed

    def wrap_named(self, kind: str, function: Callable[..., Result]) -> Callable[..., Result]:
        """As `wrap`, for a function whose first argument is the name of a tensor."""

        def observed(name: str, *args: Any) -> Result:
            return self.run(self._span(kind, name), function, name, *args)

        return observed


class ObservedContexts:
    """A `ContextFactory` whose contexts are observed.

    Attributes
    ----------
    unobserved : ContextFactory
        The factory.
    """

    def __init__(self, contexts: Any, observer: CallObserver) -> None:
        self.unobserved = contexts
        self._observer = observer

    def create(self) -> tuple[ObservedContext, Any]:
        """As `ContextFactory.create`."""
        context, settings = self._observer.wrap("make context", "", self.unobserved.create)()
        return self._observer.context(context), settings

    def create_for_graph(self) -> ObservedContext:
        """As `ContextFactory.create_for_graph`."""
        create = self._observer.wrap("make graph context", "", self.unobserved.create_for_graph)
        return self._observer.context(create())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unobserved, name)


class ObservedContext:
    """An execution context, whose methods tell listeners when they are called.

    Attributes
    ----------
    unobserved : IExecutionContext
        The context.
    """

    def __init__(self, context: Any, observer: CallObserver) -> None:
        self.unobserved = context
        for method in ("execute_async_v3", "infer_shapes", "set_optimization_profile_async"):
            setattr(self, method, observer.wrap(method, "", getattr(context, method)))
        for method in ("set_input_shape", "set_tensor_address"):
            setattr(self, method, observer.wrap_named(method, getattr(context, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unobserved, name)


def _reason(kind: str, value: torch.Tensor) -> str:
    if kind == "move":
        return f"it is on {value.device}"
    if not value.is_contiguous():
        return f"it is not contiguous: shape {list(value.shape)}, strides {list(value.stride())}"
    return f"its address is {value.data_ptr():#x}, and TensorRT wants a multiple of 256 (on a CPU, 64)"


def _shapes(args: Sequence[Any]) -> str:
    """Return the shapes of arguments as text: ``(8x3x224x224, 8)``. What is no tensor is a ``?``."""
    return f"({', '.join(map(_shape, args))})"


def _shape(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return "?"
    return "x".join(map(str, value.shape)) or "scalar"


hide_from_dynamo(globals())
