"""Runs PyTorch's operators free of what the caller has switched on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from trt_rt._core.plain_pytorch import plain_pytorch

__all__ = ["plain_execution"]


@contextmanager
def plain_execution(device: torch.device) -> Iterator[None]:
    """Run operators as they are, whatever modes of PyTorch the caller has switched on.

    Gradients, autocast, ``torch.set_default_device`` and other function modes, and dispatch modes such as
    ``FakeTensorMode`` would each change the engine's results. TensorRT's engines do not see them either.
    """
    with (
        torch.inference_mode(),
        torch._C.DisableTorchFunction(),
        plain_pytorch(),
        _without_autocast(device.type),
        # For layers that work in host memory.
        _without_autocast("cpu"),
    ):
        yield


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
