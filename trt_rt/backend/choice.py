"""Which backend to use: the first that serves, and the one for a plan, without touching a Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trt_rt.backend.adapter import Backend
from trt_rt.backend.plan_kind import PlanKind, identify_plan
from trt_rt.backend.registry import NAMES, load
from trt_rt.errors import BackendError, PlanError

__all__ = ["Choice", "choose_backend", "first"]


@dataclass(frozen=True)
class Choice:
    """What `first` has found.

    Attributes
    ----------
    name : str or None
        The backend; None if none serves.
    passed_over : dict of str to str
        Why each backend before it does not serve, in the order of preference.
    missing : frozenset of str
        Those of `passed_over` that could not even be asked: mostly, they are not installed.
    """

    name: str | None
    passed_over: dict[str, str]
    missing: frozenset[str]


def first(why_not: Callable[[str], str], names: Iterable[str] = NAMES) -> Choice:
    """Return the first backend to which there is no objection.

    Parameters
    ----------
    why_not : callable
        ``why_not(name)`` returns a sentence that says why a backend does not serve, or "" if it does. It may
        raise BackendError, as `load` does, which counts as the backend being missing.
    names : iterable of str, optional
        Backends in the order of preference. Default: all of them.

    Returns
    -------
    Choice
    """
    passed_over: dict[str, str] = {}
    missing: set[str] = set()
    for name in names:
        try:
            reason = why_not(name)
        except BackendError as error:
            reason = str(error)
            missing.add(name)
        if not reason:
            return Choice(name, passed_over, frozenset(missing))
        passed_over[name] = reason
    return Choice(None, passed_over, frozenset(missing))


def choose_backend(plan: memoryview, backend: str | Backend, name: str) -> Backend:
    """The backend for a plan.

    Parameters
    ----------
    plan : memoryview
        All of it, as bytes.
    backend : str or Backend
        A name, "auto", or a backend of one's own, which may have kinds of plans that trt_rt does not know.
    name : str
        The engine's, for messages.

    Returns
    -------
    Backend

    Raises
    ------
    PlanError
        If the plan is empty, truncated, of a kind that is not the backend's, or of a version that it does not
        run.
    BackendError
        If the backend is missing; with "auto", if all that could run the plan are.
    """
    try:
        kind = identify_plan(plan)
    except PlanError as error:
        raise PlanError(f"engine {name!r}: {error}") from None
    if isinstance(backend, Backend):
        return _checked(backend, kind, name)
    if backend == "auto":
        return _best(kind, name)
    if kind.backends and backend not in kind.backends:
        raise PlanError(_of_another_kind(kind, backend, name))
    return _checked(load(backend), kind, name)


def _checked(backend: Backend, kind: PlanKind, name: str) -> Backend:
    if backend.name not in NAMES or not kind.backends:
        return backend
    if backend.name not in kind.backends:
        raise PlanError(_of_another_kind(kind, backend.name, name))
    if reason := backend.why_not_run(kind):
        raise PlanError(f"engine {name!r} is {kind.description}; {reason}")
    return backend


def _of_another_kind(kind: PlanKind, backend: str, name: str) -> str:
    return (
        f"engine {name!r} is {kind.description}, which backend {backend!r} cannot run; "
        f"{' or '.join(repr(other) for other in kind.backends)} can. Use backend='auto'."
    )


def _best(kind: PlanKind, name: str) -> Backend:
    if not kind.backends:
        raise PlanError(
            f"engine {name!r} is {kind.description}, so no backend can be chosen for it. Check that this "
            "is a serialized engine; if it is, name its backend with backend=."
        )
    choice = first(lambda candidate: load(candidate).why_not_run(kind), kind.backends)
    if choice.name is not None:
        return load(choice.name)
    unfit = [reason for other, reason in choice.passed_over.items() if other not in choice.missing]
    if unfit:
        raise PlanError(f"engine {name!r} is {kind.description}; {' '.join(unfit)}")
    raise BackendError(
        f"engine {name!r} is {kind.description}, and none of its backends is here: "
        f"{' '.join(choice.passed_over.values())}"
    )
