"""Whether a program consists of engines only, or has PyTorch operators between them."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from enum import Enum
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode

from trt_rt.module import TRTModule
from trt_rt.module.find_engines import find_engines

__all__ = ["OperatorObserver", "ProgramKind", "program_kind"]


class ProgramKind(Enum):
    """The kinds of programs.

    Attributes
    ----------
    ENGINES
        Engines, and nothing else that runs on the device.
    MIXED
        Engines and PyTorch operators.
    UNKNOWN
        Engines and Python code that cannot be read as a graph. Only a call shows the kind.
    """

    ENGINES = "engines"
    MIXED = "mixed"
    UNKNOWN = "unknown"


def program_kind(program: torch.nn.Module) -> ProgramKind:
    """Return a program's kind, from its structure and graph, without running it.

    Parameters
    ----------
    program : torch.nn.Module
        An engine is `ENGINES`. A ``torch.fx.GraphModule``, which ``torch.export`` returns too, is read node
        by node. A ``torch.nn.Sequential`` has the kind of its parts. A part without engines counts as
        PyTorch operators. All other modules with engines are `UNKNOWN`: their names say nothing, and tracing
        their code could change them.
    """
    if isinstance(program, TRTModule):
        return ProgramKind.ENGINES
    # A program of trt_rt.compile knows its kind.
    computes_outside = getattr(program, "computes_outside_engines", None)
    if isinstance(computes_outside, bool):
        return ProgramKind.MIXED if computes_outside else ProgramKind.ENGINES
    if isinstance(program, GraphModule):
        return _all_of(_kind_of_node(node, program) for node in program.graph.nodes)
    if type(program) is torch.nn.Identity:
        return ProgramKind.ENGINES
    if type(program).forward is torch.nn.Sequential.forward and isinstance(program, torch.nn.Sequential):
        return _all_of(program_kind(part) for part in program)
    if not _has_engines(program):
        return ProgramKind.MIXED
    return ProgramKind.UNKNOWN


def _has_engines(module: torch.nn.Module) -> bool:
    try:
        find_engines(module)
    except ValueError:
        return False
    return True


def _all_of(kinds: Iterable[ProgramKind]) -> ProgramKind:
    found = set(kinds)
    if ProgramKind.MIXED in found:
        return ProgramKind.MIXED
    return ProgramKind.UNKNOWN if ProgramKind.UNKNOWN in found else ProgramKind.ENGINES


def _kind_of_node(node: Node, program: GraphModule) -> ProgramKind:
    if node.op == "call_module":
        return _kind_of_submodule(node, program)
    if node.op in ("call_function", "call_method") and _computes(node):
        return ProgramKind.MIXED
    return ProgramKind.ENGINES


def _kind_of_submodule(node: Node, program: GraphModule) -> ProgramKind:
    part = program.get_submodule(str(node.target))
    # torch.export puts its checks of the inputs' shapes into a submodule without users of its result.
    if not node.users and not _has_engines(part):
        return ProgramKind.ENGINES
    return program_kind(part)


def _computes(node: Node) -> bool:
    """Return whether a node of a graph runs something on the device."""
    if node.target in (operator.getitem, torch._assert) and not _indexes_a_tensor(node):
        return False
    values = [value.meta["val"] for value in (node, *node.all_input_nodes) if "val" in value.meta]
    if values and not any(isinstance(value, (torch.Tensor, tuple, list)) for value in values):
        return False  # arithmetic on sizes, or a check of sizes
    return not (isinstance(node.target, torch._ops.OpOverload) and node.target.is_view)


def _indexes_a_tensor(node: Node) -> bool:
    """Return whether a getitem indexes a tensor with more than a number."""
    return node.target is operator.getitem and not isinstance(node.args[1], (int, str))


class OperatorObserver(TorchDispatchMode):
    """Context manager that notes whether this thread runs PyTorch operators. Engines do not count.

    Attributes
    ----------
    seen : str
        The name of the first operator that ran something on the device; "" before. Views and allocations
        run nothing there.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch has no annotation for it
        self.seen = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self.seen and not func.is_view and func not in _ALLOCATIONS:
            self.seen = str(func)
        return func(*args, **(kwargs or {}))


_ALLOCATIONS = frozenset(
    getattr(getattr(torch.ops.aten, name), overload)
    for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
    for overload in getattr(torch.ops.aten, name).overloads()
    if overload != "out"
)
