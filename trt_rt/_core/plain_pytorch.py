"""Running our own PyTorch operators free of the modes and transforms that surround a call."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext

import torch

from trt_rt._core.dynamo import hide_from_dynamo

__all__ = ["SURROUNDING_KEYS", "plain_pytorch"]

SURROUNDING_KEYS = functools.reduce(
    lambda keys, key: keys | key,
    (
        torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, name))
        for name in (
            # Dispatch modes such as FakeTensorMode, and the compiler's dispatcher.
            *("Python", "PythonTLSSnapshot", "PythonDispatcher", "PreDispatch", "Functionalize"),
            # torch.func's transforms.
            *("FuncTorchDynamicLayerFrontMode", "FuncTorchDynamicLayerBackMode", "FuncTorchGradWrapper"),
            *("FuncTorchBatched", "FuncTorchBatchedDecomposition", "FuncTorchVmapMode"),
            *("AutocastCPU", "AutocastCUDA"),
        )
    ),
)
"""Parts of PyTorch's dispatcher that come before an operator's kernel and change what it computes."""


def plain_pytorch() -> AbstractContextManager[None]:
    """Return a context in which PyTorch's operators run as they are.

    Under a dispatch mode such as ``FakeTensorMode`` a copy of an input would be a tensor without memory, and
    within ``torch.func.grad`` it would be wrapped. An engine that PyTorch executes would compute nothing, or
    fail. TensorRT's engines do not see modes and transforms at all.

    The context manager is PyTorch's own, in C. An interrupt could cut short one in Python, and the caller
    would be left without its modes.
    """
    if torch._C._len_torch_dispatch_stack() == 0 and torch._C._functorch.peek_interpreter_stack() is None:
        return nullcontext()
    guard: AbstractContextManager[None] = torch._C._ExcludeDispatchKeyGuard(SURROUNDING_KEYS)
    return guard


hide_from_dynamo(globals())
