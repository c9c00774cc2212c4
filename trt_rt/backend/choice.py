"""Which backend runs a plan; a plan that none here can run is refused before any Runtime is touched."""

from __future__ import annotations

from trt_rt.backend.adapter import Backend
from trt_rt.backend.plan_kind import PlanKind, identify_plan
from trt_rt.backend.registry import NAMES, load
from trt_rt.errors import BackendError, PlanError

__all__ = ["choose_backend"]


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
    missing, unfit = [], []
    for candidate in kind.backends:
        try:
            backend = load(candidate)
        except BackendError as error:
            missing.append(str(error))
            continue
        reason = backend.why_not_run(kind)
        if not reason:
            return backend
        unfit.append(reason)
    if unfit:
        raise PlanError(f"engine {name!r} is {kind.description}; {' '.join(unfit)}")
    raise BackendError(
        f"engine {name!r} is {kind.description}, and none of its backends is here: {' '.join(missing)}"
    )
