"""Keeps torch.compile from looking into the calls of engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, TypeVar

import torch

__all__ = ["constant_in_dynamo", "hide_from_dynamo", "skip_in_dynamo"]

Function = TypeVar("Function", bound=Callable[..., Any])


def hide_from_dynamo(*owners: dict[str, Any] | type) -> None:
    """Let torch.compile run functions as they are, and all that they call.

    In a compiled function a call of an engine is a call of C code, which Dynamo leaves alone. But Dynamo is
    asked about every Python function that runs meanwhile, also about those that the C code calls: it would
    compile each, again and again for other shapes, and the operators of an engine of the reference backend
    with them. The functions that C code calls are marked, so that Dynamo is not asked.

    Parameters
    ----------
    *owners : dict or type
        Of the functions: the global names of a module, or a class.
    """
    for owner in owners:
        for function in _functions_of(owner):
            skip_in_dynamo(function)


def skip_in_dynamo(function: FunctionType) -> None:
    """Let torch.compile run one function as it is, and all that it calls.

    ``torch.compiler.disable`` does the same, and imports Dynamo for it, which takes more than a second.
    """
    eval_frame: Any = getattr(torch._C._dynamo, "eval_frame", None)
    mark = getattr(eval_frame, "set_code_exec_strategy", None)
    if mark is None:  # before PyTorch 2.8 there is no mark that covers what a function calls
        return
    skip = eval_frame._FrameAction.SKIP
    mark(function.__code__, eval_frame._FrameExecStrategy(skip, skip))


def constant_in_dynamo(function: Function) -> Function:
    """Let Dynamo run a function while it traces, and take the result for a constant.

    ``torch._dynamo.assume_constant_result`` does the same, and imports Dynamo.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


def _functions_of(owner: dict[str, Any] | type) -> Iterator[FunctionType]:
    module = owner["__name__"] if isinstance(owner, dict) else owner.__module__
    for value in list(owner.values() if isinstance(owner, dict) else vars(owner).values()):
        candidates = (value, *(getattr(value, name, None) for name in ("__func__", "fget", "fset", "func")))
        for candidate in candidates:
            if isinstance(candidate, FunctionType) and candidate.__module__ == module:
                yield candidate
        if isinstance(owner, dict) and isinstance(value, type) and value.__module__ == module:
            yield from _functions_of(value)
