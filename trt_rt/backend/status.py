"""The state of every backend on this machine."""

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
    """The state of one backend on this machine.

    Attributes
    ----------
    name : str
        The name that `Engine.from_bytes` takes.
    installed : bool
        Whether the backend can be imported.
    version : str or None
        The installed version.
    can_build, can_run : bool
        Whether the backend can build and run plans on this machine now.
    reason : str
        A sentence that says why the backend cannot run plans, or else why it cannot build them. Empty if it
        can do both.
    library : str or None
        The file of the shared library. None for the reference backend, and for one that is not installed.
    """

    name: str
    installed: bool
    version: str | None
    can_build: bool
    can_run: bool
    reason: str
    library: str | None = None


def backends() -> dict[str, BackendStatus]:
    """Return the state of every backend.

    Returns
    -------
    dict of str to BackendStatus
        The five backends in the order of preference.

    Notes
    -----
    This imports the installed backends, but never makes a ``Runtime``. Without a driver the first use of a
    ``Runtime`` ends the process.
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
        reason = "It runs plans but cannot build them. Build with 'tensorrt' on another machine."
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
