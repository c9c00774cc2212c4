"""The choice of the backend that builds."""

from __future__ import annotations

from trt_rt.backend import BUILDERS, Backend, backends, first, load
from trt_rt.errors import BackendError

__all__ = ["choose_builder"]


def choose_builder(wanted: str | Backend, *, for_onnx: bool = False) -> Backend:
    """Return the backend for a build.

    Parameters
    ----------
    wanted : str or Backend
        "auto" for the best that can build on this machine.
    for_onnx : bool
        Whether it must read ONNX, which the reference backend cannot.

    Raises
    ------
    BackendError
        The backend is not installed, or it cannot build on this machine or from ONNX. The message says why.
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
    choice = first(
        lambda name: "" if statuses[name].can_build else statuses[name].reason,
        [name for name in BUILDERS if not (for_onnx and name == "reference")],
    )
    if choice.name is None:
        reasons = " ".join(f"{name}: {reason}" for name, reason in choice.passed_over.items())
        what = "from ONNX " if for_onnx else ""
        raise BackendError(f"no backend can build {what}on this machine. {reasons}")
    return load(choice.name)


def _checked(backend: Backend, for_onnx: bool) -> Backend:
    if not backend.has_builder:
        raise BackendError(
            f"backend {backend.name!r} runs plans and builds none: build with {', '.join(BUILDERS)}"
        )
    if for_onnx and not hasattr(backend.api, "OnnxParser"):
        raise BackendError(
            f"backend {backend.name!r} has no ONNX parser: give build the torch.nn.Module, or what "
            "torch.export made of it, or build with tensorrt or tensorrt_rtx"
        )
    return backend
