"""Running our own PyTorch operators outside of the user's dispatch modes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["without_dispatch_modes"]


def without_dispatch_modes() -> AbstractContextManager[Any]:
    """A context in which operators run as they are.

    Under a mode such as ``FakeTensorMode``, a copy of an input would be a tensor without memory, and an
    engine that PyTorch executes would compute nothing. An engine is opaque to modes, as TensorRT's are.
    """
    if torch._C._len_torch_dispatch_stack() == 0:
        return nullcontext()
    from torch.utils._python_dispatch import _disable_current_modes

    return _disable_current_modes()
