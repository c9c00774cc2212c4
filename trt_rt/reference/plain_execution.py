"""Runs PyTorch's operators free of what the caller has switched on.

TensorRT's engines do not see PyTorch's modes, transforms and compilers, and neither do these. No interrupt
leaves anything switched: `between` switches ``__torch_function__`` back, and PyTorch's other context managers
switch back when they are freed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

import torch

from trt_rt._core.critical import between
from trt_rt._core.dynamo import skip_in_dynamo
from trt_rt._core.plain_pytorch import SURROUNDING_KEYS

__all__ = ["inference", "plain"]

_C: Any = torch._C  # PyTorch's stub lacks these functions
_SWITCH_OFF = partial(_C._set_torch_function_state, _C._TorchFunctionState.ALL_DISABLED)

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def plain(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorate a function so that the operators it calls run as they are.

    Autocast, ``torch.set_default_device`` and other function modes, dispatch modes, and torch.func's
    transforms do not apply to it, and torch.compile does not look into it.
    """

    @functools.wraps(function)
    def call_plain(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        return _without_torch_function(partial(_without_surroundings, partial(function, *args, **kwargs)))

    _hide_from_dynamo(call_plain)
    return call_plain


def inference(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorate a function as :func:`plain` does, and run it in inference mode."""

    @functools.wraps(function)
    def call_inference(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with torch._C._InferenceMode(True):
            return _without_torch_function(partial(_without_surroundings, partial(function, *args, **kwargs)))

    _hide_from_dynamo(call_inference)
    return call_inference


def _without_torch_function(function: Callable[[], _Result]) -> _Result:
    restore = partial(_C._set_torch_function_state, _C._get_torch_function_state())
    return between(_SWITCH_OFF, function, restore)


def _without_surroundings(function: Callable[[], _Result]) -> _Result:
    with torch._C._ExcludeDispatchKeyGuard(SURROUNDING_KEYS):
        return function()


def _hide_from_dynamo(function: Any) -> None:
    """Let torch.compile skip a function and everything that it calls."""
    skip_in_dynamo(function)
    # Compiled code that calls the function directly must not trace it either.
    function._torchdynamo_disable = True
