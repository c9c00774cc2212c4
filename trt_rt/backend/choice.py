"""Chooses a backend, for a plan or for another purpose, without making a Runtime."""

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
    """The result of `first`.

    Attributes
    ----------
    name : str or None
        The chosen backend, or None if there is an objection to every backend.
    passed_over : dict of str to str
        The objection to each backend before the chosen one, in the order of preference.
    missing : frozenset of str
        The backends of `passed_over` that could not be loaded, usually because they are not installed.
    """

    name: str | None
    passed_over: dict[str, str]
    missing: frozenset[str]


def first(why_not: Callable[[str], str], names: Iterable[str] = NAMES) -> Choice:
    """Return the first backend without an objection.

    Parameters
    ----------
    why_not : callable
        ``why_not(name)`` returns an objection to a backend as a sentence, or "". It may raise BackendError,
        as `load` does; the backend then counts as missing.
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
    """Return the backend for a plan.

    Parameters
    ----------
    plan : memoryview
        The whole plan, as bytes.
    backend : str or Backend
        A name, "auto", or the user's own backend, which may run kinds of plans that trt_rt does not know.
    name : str
        The engine's name in messages.

    Returns
    -------
    Backend

    Raises
    ------
    PlanError
        The plan is empty or truncated, or the backend does not run its kind or version.
    BackendError
        The backend is missing. With "auto": every backend that could run the plan is missing.
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
        f"engine {name!r} is {kind.description}, and no backend that runs it is installed: "
        f"{' '.join(choice.passed_over.values())}"
    )
