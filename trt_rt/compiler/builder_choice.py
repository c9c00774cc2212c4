"""The backend that builds."""

from __future__ import annotations

from trt_rt.backend import Backend, backends, load
from trt_rt.errors import BackendError

__all__ = ["choose_builder"]

_PREFERENCE = ("tensorrt", "tensorrt_rtx", "reference")
"""Backends that can build, the best first; lean and dispatch only run what another has built."""


def choose_builder(wanted: str | Backend, *, for_onnx: bool = False) -> Backend:
    """Return the backend that is to build.

    Parameters
    ----------
    wanted : str or Backend
        "auto" for the best that can build on this machine.
    for_onnx : bool
        Whether it must read ONNX, as the reference backend cannot.

    Raises
    ------
    BackendError
        It is not installed, or cannot build on this machine or from ONNX; with the reason.
    """
    if isinstance(wanted, Backend):
        return _checked(wanted, for_onnx)
    if wanted == "auto":
        return _best(for_onnx)
    backend = _checked(load(wanted), for_onnx)
    status = backends()[wanted]
    if not status.can_build:
        raise BackendError(f"backend {wanted!r} cannot build on this machine. {status.reason}")
    return backend


def _best(for_onnx: bool) -> Backend:
    statuses = backends()
    candidates = [name for name in _PREFERENCE if not (for_onnx and name == "reference")]
    for name in candidates:
        if statuses[name].can_build:
            return load(name)
    reasons = " ".join(f"{name}: {statuses[name].reason}" for name in candidates)
    what = "from ONNX " if for_onnx else ""
    raise BackendError(f"no backend can build {what}on this machine. {reasons}")


def _checked(backend: Backend, for_onnx: bool) -> Backend:
    if not backend.has_builder:
        raise BackendError(
            f"backend {backend.name!r} runs plans and builds none: build with {', '.join(_PREFERENCE)}"
        )
    if for_onnx and not hasattr(backend.api, "OnnxParser"):
        raise BackendError(
            f"backend {backend.name!r} has no ONNX parser: give build the torch.nn.Module, or what "
            "torch.export made of it, or build with tensorrt or tensorrt_rtx"
        )
    return backend
