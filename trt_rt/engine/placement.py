"""Which device an engine gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt.backend import Backend
from trt_rt.errors import BackendError

__all__ = ["current_device", "resolve_device"]


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


@contextmanager
def current_device(device: torch.device) -> Iterator[None]:
    """Make `device` the current one, as TensorRT wants, free of the caller's modes and transforms.

    The caller's device is current again afterwards.
    """
    with torch.cuda.device(device if device.type == "cuda" else -1), plain_pytorch():
        yield
