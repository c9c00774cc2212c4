"""The Python function that a program's call is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["GeneratedCall"]


@dataclass(frozen=True)
class GeneratedCall:
    """Source code of a program's call, and what it refers to.

    Attributes
    ----------
    source : str
        Defines the function ``forward``.
    constants : dict
        Global names of functions, dtypes and checks.
    engines : dict
        Global names of the engines, with their names in the program.
    weights : dict
        Global names of weights and branches, with their paths in the model.
    computes : bool
        Whether PyTorch operators in it do something on the device.
    """

    source: str
    constants: dict[str, Any]
    engines: dict[str, str]
    weights: dict[str, str]
    computes: bool

    def bind(self, engines: torch.nn.Module, weights: torch.nn.Module) -> Callable[..., Any]:
        """Return the function with the submodules of one module and the weights of another."""
        scope = dict(self.constants)
        for names, root in ((self.engines, engines), (self.weights, weights)):
            for name, path in names.items():
                owner, _, attribute = path.rpartition(".")
                scope[name] = getattr(root.get_submodule(owner), attribute)
        exec(compile(self.source, "<trt_rt program>", "exec"), scope)
        function: Callable[..., Any] = scope["forward"]
        return function
