"""The keyword ``compiled_module=``, under which some of Torch-TensorRT's controls take their module."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["takes_compiled_module"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def takes_compiled_module(control: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a control that takes its first argument, ``module``, as ``compiled_module=`` too."""

    @wraps(control)
    def call(*args: Any, **kwargs: Any) -> Result:
        if "compiled_module" in kwargs:
            if args or "module" in kwargs:
                raise TypeError(f"{control.__name__}() got both a module and compiled_module=.")
            kwargs["module"] = kwargs.pop("compiled_module")
        return control(*args, **kwargs)

    return call
