"""Runs PyTorch's operators free of what the caller has switched on.

TensorRT's engines do not see PyTorch's modes, transforms and compilers, and neither do these. Everything here
is a context manager that PyTorch implements in C, entered by a ``with`` statement of its own: no interrupt
can come between switching something and remembering to switch it back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from trt_rt._core.dynamo import skip_in_dynamo
from trt_rt._core.plain_pytorch import SURROUNDING_KEYS

__all__ = ["inference", "plain"]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def plain(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorate a function so that the operators it calls run as they are.

    Autocast, ``torch.set_default_device`` and other function modes, dispatch modes, and torch.func's
    transforms do not apply to it, and torch.compile does not look into it.
    """

    @functools.wraps(function)
    def call_plain(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with torch._C.DisableTorchFunction(), torch._C._ExcludeDispatchKeyGuard(SURROUNDING_KEYS):
            return function(*args, **kwargs)

    _hide_from_dynamo(call_plain)
    return call_plain


def inference(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorate a function as :func:`plain` does, and run it in inference mode."""

    @functools.wraps(function)
    def call_inference(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with (
            torch._C._InferenceMode(True),
            torch._C.DisableTorchFunction(),
            torch._C._ExcludeDispatchKeyGuard(SURROUNDING_KEYS),
        ):
            return function(*args, **kwargs)

    _hide_from_dynamo(call_inference)
    return call_inference


def _hide_from_dynamo(function: Any) -> None:
    """Let torch.compile skip a function and everything that it calls."""
    skip_in_dynamo(function)
    # Compiled code that calls the function directly must not trace it either.
    function._torchdynamo_disable = True
