"""Running our own PyTorch operators free of the modes and transforms that surround a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from trt_rt._core.dynamo import hide_from_dynamo

__all__ = ["plain_pytorch"]


def plain_pytorch() -> AbstractContextManager[None]:
    """Return a context in which PyTorch's operators run as they are.

    Under a dispatch mode such as ``FakeTensorMode`` a copy of an input would be a tensor without memory, and
    within ``torch.func.grad`` it would be wrapped. An engine that PyTorch executes would compute nothing, or
    fail. TensorRT's engines do not see modes and transforms at all.
    """
    if torch._C._len_torch_dispatch_stack() == 0 and torch._C._functorch.peek_interpreter_stack() is None:
        return nullcontext()
    return _without_modes_and_transforms()


@contextmanager
def _without_modes_and_transforms() -> Iterator[None]:
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes(), torch._C._DisableFuncTorch():
        yield


hide_from_dynamo(globals())
