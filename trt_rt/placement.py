"""Which backend and which device an engine gets."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trt_rt.backend import Backend, identify_plan, load
from trt_rt.errors import BackendError, PlanError

__all__ = ["choose_backend", "current_device", "resolve_device"]


def choose_backend(plan: memoryview, backend: str | Backend, name: str) -> Backend:
    """The backend for a plan, by name or "auto"; raises PlanError or BackendError if there is none."""
    kind = identify_plan(plan)
    if isinstance(backend, Backend):
        return backend
    if backend == "auto":
        if not kind.backends:
            raise PlanError(
                f"engine {name!r} is {kind.description}, so no backend can be chosen for it. Check that this "
                "is a serialized engine; if it is, name its backend with backend=."
            )
        return _first_installed(kind.backends, kind.description, name)
    if kind.backends and backend not in kind.backends:
        raise PlanError(
            f"engine {name!r} is {kind.description}, which backend {backend!r} cannot run; "
            f"{' or '.join(repr(other) for other in kind.backends)} can. Use backend='auto'."
        )
    return load(backend)


def _first_installed(names: Sequence[str], description: str, engine: str) -> Backend:
    problems = []
    for name in names:
        try:
            return load(name)
        except BackendError as error:
            problems.append(str(error))
    raise BackendError(
        f"engine {engine!r} is {description}, and none of its backends is here: {' '.join(problems)}"
    )


def resolve_device(device: torch.device | str | int | None, backend: Backend) -> torch.device:
    """The device that a user has named, with its index; raises BackendError if no engine runs there."""
    if device is None:
        device = "cpu" if backend.runs_on_cpu and not torch.cuda.is_available() else "cuda"
    try:
        resolved = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BackendError(f"device={device!r} is no device: {str(error).splitlines()[0]}") from None
    if resolved.type not in ("cpu", "cuda") or (resolved.index or 0) < 0:
        raise BackendError(
            f"engines run on CUDA devices (and the reference backend on the CPU), not on {resolved}."
        )
    if resolved.type == "cpu":
        return torch.device("cpu")
    if resolved.index is None and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cuda", resolved.index or 0)


def current_device(device: torch.device) -> torch.cuda.device:
    """A context in which `device` is the current one, as TensorRT wants; the caller's is back afterwards."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
