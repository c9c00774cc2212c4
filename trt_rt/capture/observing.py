"""Enters PyTorch's dispatch modes so that no interrupt leaves one on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trt_rt._core.critical import between

__all__ = ["observing"]

Result = TypeVar("Result")


def observing(mode: TorchDispatchMode, function: Callable[[], Result]) -> Result:
    """Call a function while a dispatch mode sees the operators of this thread.

    Not ``with mode``: an interrupt can cut short the mode's ``__exit__``, which is written in Python.

    Parameters
    ----------
    mode : TorchDispatchMode
        The mode.
    function : callable
        Without arguments.

    Returns
    -------
    object
        What the function returns.
    """
    depth = torch._C._len_torch_dispatch_stack()
    return between(mode.__enter__, function, partial(_leave, mode, depth))


def _leave(mode: TorchDispatchMode, depth: int) -> None:
    if torch._C._len_torch_dispatch_stack() == depth:
        return
    try:
        mode.__exit__(None, None, None)
    except IndexError:  # an interrupt has cut it short, after it took its own notes off their stacks
        torch._C._pop_torch_dispatch_stack(None)
