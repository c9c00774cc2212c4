"""What tests build once a process, in the same way whichever test asks first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

__all__ = ["built_once"]

_Parameters = ParamSpec("_Parameters")
_Built = TypeVar("_Built")


def built_once(build: Callable[_Parameters, _Built]) -> Callable[_Parameters, _Built]:
    """Keep what a function builds, for each of its arguments.

    A test must not ask for it where a mode of PyTorch is on: if it were the first one to ask, the mode would
    be in what other tests get.
    """
    kept = functools.cache(build)

    @functools.wraps(build)
    def get(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Built:
        assert torch.get_default_dtype() == torch.float32, "ask before the default dtype is changed"
        assert not torch.is_autocast_enabled("cpu"), "ask outside of autocast"
        assert not torch.is_inference_mode_enabled(), "ask outside of inference mode"
        assert not torch._C._len_torch_dispatch_stack(), "ask outside of dispatch modes, as for fake tensors"
        assert not torch._C._len_torch_function_stack(), "ask outside of function modes, as for a device"
        assert torch._C._functorch.peek_interpreter_stack() is None, "ask outside of transforms"
        return kept(*args, **kwargs)

    return get
