"""Switches PyTorch's gradient and inference modes so that no interrupt leaves one on.

The context managers ``torch.no_grad`` and ``torch.inference_mode`` are written in Python. An interrupt can
cut short their ``__exit__``, and leave the caller without gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from trt_rt._core.critical import between
from trt_rt._core.dynamo import hide_from_dynamo

__all__ = ["in_inference_mode", "without_grad"]

Result = TypeVar("Result")

_SWITCH_OFF = partial(torch._C._set_grad_enabled, False)
_SWITCH_ON = partial(torch._C._set_grad_enabled, True)


def without_grad(function: Callable[[], Result]) -> Result:
    """Call a function as under ``torch.no_grad``, and return its result."""
    restore = _SWITCH_ON if torch.is_grad_enabled() else _SWITCH_OFF
    return between(_SWITCH_OFF, function, restore)


def in_inference_mode(enabled: bool, function: Callable[[], Result]) -> Result:
    """Call a function as under ``torch.inference_mode(enabled)``, and return its result."""
    modes: list[torch._C._InferenceMode] = []  # depending on the version, one is on as soon as it exists

    def enter() -> None:
        modes.append(torch._C._InferenceMode(enabled))
        modes[0].__enter__()

    def leave() -> None:
        for mode in modes:
            mode.__exit__(None, None, None)

    return between(enter, function, leave)


hide_from_dynamo(globals())
