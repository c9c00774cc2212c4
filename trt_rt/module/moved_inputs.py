"""Copies arguments to the engine's device, for modules that ask for it."""

from __future__ import annotations

import warnings
from functools import partial

import torch

from trt_rt._core.autograd_modes import without_grad
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt._core.plain_pytorch import plain_pytorch

__all__ = ["InputMover"]


class InputMover:
    """Copies arguments that are on another device, and warns of the first.

    Parameters
    ----------
    name : str
        The module's, for the warning.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._has_warned = False

    def __call__(self, value: torch.Tensor, target: IOTensor, device: torch.device) -> torch.Tensor:
        """Return a copy of `value` on `device`."""
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"engine {self._name!r}: input {target} was on {value.device} and is copied to {device}, in "
                "every call. Move it before, or keep move_inputs=False to have such inputs refused.",
                stacklevel=2,
            )
        return without_grad(partial(_copied, value, device))


def _copied(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    with plain_pytorch():
        return value.to(device)


hide_from_dynamo(globals())
