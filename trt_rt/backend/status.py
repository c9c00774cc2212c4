"""Which backends this machine has, and what each can do here."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trt_rt._core.driver import device_count
from trt_rt.backend.adapter import Backend
from trt_rt.backend.registry import NAMES, load
from trt_rt.errors import BackendError

__all__ = ["BackendStatus", "backends"]


@dataclass(frozen=True)
class BackendStatus:
    """What one backend can do on this machine.

    Attributes
    ----------
    name : str
        As `Engine.from_bytes` takes it.
    installed : bool
        Whether it imports.
    version : str or None
        Of the installed one.
    can_build, can_run : bool
        On this machine, as it is.
    reason : str
        If it cannot run, why not, in a sentence; if it runs but cannot build, why that. Else empty.
    library : str or None
        The file of its shared library; None for the reference backend, and where it is not installed.
    """

    name: str
    installed: bool
    version: str | None
    can_build: bool
    can_run: bool
    reason: str
    library: str | None = None


def backends() -> dict[str, BackendStatus]:
    """Look at every backend.

    Returns
    -------
    dict of str to BackendStatus
        All five, in the order of preference. Imports those that are installed, but never makes a Runtime:
        with no driver the first use of one ends the process.
    """
    return {name: _status(name) for name in NAMES}


def _status(name: str) -> BackendStatus:
    try:
        backend = load(name)
    except BackendError as error:
        return BackendStatus(name, False, None, False, False, str(error))
    can_build = backend.has_builder and (backend.builds_without_gpu or device_count()[0] > 0)
    why_not_run = _why_not_run(backend)
    reason = why_not_run
    if not reason and not can_build:
        reason = "It runs plans and builds none: build with 'tensorrt' on another machine."
    library = backend.library.path if backend.library else None
    return BackendStatus(name, True, backend.version, can_build, not why_not_run, reason, library)


def _why_not_run(backend: Backend) -> str:
    if backend.runs_on_cpu:
        return ""
    count, why = device_count()
    if count == 0:
        return f"It needs a GPU: {why}."
    if not torch.cuda.is_available():
        return "This PyTorch is built without CUDA, so it cannot hold an engine's tensors."
    reasons = [backend.why_not_on(torch.cuda.get_device_capability(index)) for index in range(count)]
    return reasons[0] if all(reasons) else ""
