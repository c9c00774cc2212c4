"""The Python function that a program's call is."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.modules.module as _torch_module
from torch.fx import Graph, GraphModule

from trt_rt.compiled.calling_convention import CallingConvention

__all__ = ["GeneratedCall"]


_HOOKS = ("forward_hooks", "forward_pre_hooks")


@dataclass(frozen=True)
class GeneratedCall:
    """Source code of a program's call, and what it refers to.

    Attributes
    ----------
    parameters : str
        Of the function.
    arguments : str
        The expressions that pass the parameters on to another call.
    body : str
        Its statements, indented.
    constants : dict
        Global names of functions, dtypes and checks.
    functions : frozenset of str
        Those of them that are called in the place of operators.
    engines : dict
        Global names of the engines, with their names in the program.
    weights : dict
        Global names of weights and branches, with their paths in the model.
    computes : bool
        Whether PyTorch operators in it do something on the device.
    convention : CallingConvention
        How it is called.
    graph : torch.fx.Graph
        What it was written from: engines are ``call_module`` nodes.
    ranges : mapping
        Of symbol in the graph to the range of sizes for which it is right.
    branch : callable
        Returns what is called for a branch of ``torch.cond``.
    """

    parameters: str
    arguments: str
    body: str
    constants: dict[str, Any]
    functions: frozenset[str]
    engines: dict[str, str]
    weights: dict[str, str]
    computes: bool
    convention: CallingConvention
    graph: Graph
    ranges: Mapping[Any, Any]
    branch: Callable[[GraphModule], GraphModule]

    @property
    def source(self) -> str:
        """The function, as Python."""
        return f"def forward({self.parameters}):\n{self.body}"

    def bind(
        self, program: torch.nn.Module, weights: torch.nn.Module
    ) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        """Return three functions that do the same: the call of a program, one without hooks, and forward.

        Tracers of PyTorch follow forward. The other two call operators in a way that these cannot follow.

        Parameters
        ----------
        program : torch.nn.Module
            Has the engines, and the hooks that a call runs and a forward does not. The functions keep no
            reference to it, so that it is freed as soon as nobody uses it.
        weights : torch.nn.Module
            Has the weights.
        """
        scope = dict(self.constants)
        for names, root in ((self.engines, program), (self.weights, weights)):
            for name, path in names.items():
                owner, _, attribute = path.rpartition(".")
                value = getattr(root.get_submodule(owner), attribute)
                scope[name] = self.branch(value) if isinstance(value, GraphModule) else value
        reference = weakref.ref(program)

        def with_hooks(*args: Any, **kwargs: Any) -> Any:
            return torch.nn.Module.__call__(reference(), *args, **kwargs)

        traceable = dict(scope)
        for name in self.functions:
            value = self.constants[name]
            if isinstance(value, torch._ops.OpOverload):
                # Skips the look at its arguments that an OpOverload does in Python before it calls this.
                scope[name] = value._op
        scope["with_hooks"] = with_hooks
        conditions = []
        for name in _HOOKS:
            for owner_name, hooks in (
                ("own", getattr(program, f"_{name}")),
                ("global", getattr(_torch_module, f"_global_{name}")),
            ):
                conditions.append(f"{owner_name}_{name}")
                scope[conditions[-1]] = hooks
        head = f"    if {' or '.join(conditions)}: return with_hooks({self.arguments})\n"
        call = f"def call({self.parameters}):\n{head}{self.body}"
        exec(compile(f"{self.source}\n{call}", "<trt_rt program>", "exec"), scope)
        exec(compile(self.source, "<trt_rt program>", "exec"), traceable)
        # Taken out of their own globals: a circle would keep the engines until a garbage collection.
        return scope.pop("call"), scope.pop("forward"), traceable.pop("forward")
