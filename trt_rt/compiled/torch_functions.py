"""The cheapest Python function that does what an operator of PyTorch does.

``torch.relu(x)`` parses its arguments in C++ and costs 0.75 to 1 us less than ``torch.ops.aten.relu(x)``,
which does the same. A function is taken only if it was seen to do the same: on tensors without memory, it
must call the same operators with the same results.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses import FakeTensor
from torch.fx import GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

if TYPE_CHECKING:
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

from trt_rt._core.silent_log import FAKE_TENSOR_LOG, silent_log

__all__ = ["TorchFunctions"]

_PLACES: tuple[Any, ...] = tuple(
    getattr(torch._C, name) for name in ("_VariableFunctions", "_nn", "_fft", "_linalg", "_special")
)


class TorchFunctions:
    """Finds the functions of one program, which often calls an operator many times with the same sizes."""

    def __init__(self) -> None:
        self._found: dict[Any, Callable[..., Any]] = {}

    def function(self, node: Node) -> Callable[..., Any]:
        """Return what to call instead of a node's operator, with the same arguments; else the operator."""
        target = node.target
        assert callable(target)
        if target is torch.ops.aten.sym_size.int:
            size: Callable[..., Any] = torch._C.TensorBase.size
            return size
        if not isinstance(target, torch._ops.OpOverload):
            return target
        arguments = _fake_arguments(node)
        if arguments is None:
            return target
        key = (target, repr(tree_map(_description, arguments)))
        if key not in self._found:
            self._found[key] = _choose(target, *arguments)
        return self._found[key]

    @staticmethod
    def branch(graph: GraphModule) -> GraphModule:
        """Return what to call for a branch of ``torch.cond``, or for a part of a loop."""
        return graph


def _choose(
    target: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Callable[..., Any]:
    same = (each for each in _candidates(target) if _does_the_same(target, each, args, kwargs))
    return next(same, target)


def _candidates(target: torch._ops.OpOverload) -> Iterator[Callable[..., Any]]:
    if target.namespace != "aten":
        return
    # Another schema's name for the same: `to` copies unless nothing changes.
    name = "to" if target is torch.ops.aten._to_copy.default else target._schema.name.partition("::")[2]
    for place in _PLACES:
        if callable(function := getattr(place, name, None)):
            yield function
    arguments = target._schema.arguments
    # An unbound method is called with the tensor as its first argument.
    method = getattr(torch._C.TensorBase, name, None)
    if arguments and str(arguments[0].type) == "Tensor" and callable(method):
        yield method


def _fake_arguments(node: Node) -> tuple[Sequence[Any], Mapping[str, Any]] | None:
    """The values of a node's arguments; None where one is not known."""
    unknown = False

    def value(argument: Node) -> Any:
        nonlocal unknown
        if "val" not in argument.meta:
            unknown = True
            return None
        return argument.meta["val"]

    args = torch.fx.map_arg(node.args, value)
    kwargs = torch.fx.map_arg(node.kwargs, value)
    return None if unknown else (args, kwargs)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch has no annotation for it
        self.calls: list[Any] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls.append((func, tree_map(_description, (args, kwargs or {}))))
        return func(*args, **(kwargs or {}))


def _description(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(map(str, (value.shape, value.stride(), value.dtype, value.device)))
    return str(value) if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) else value


def _does_the_same(
    target: Callable[..., Any],
    candidate: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> bool:
    try:
        with silent_log(FAKE_TENSOR_LOG):
            wanted, found = _record(target, args, kwargs), _record(candidate, args, kwargs)
    except Exception:  # the candidate does not take these arguments, or nothing can be said without values
        return False
    return bool(wanted[0]) and _comparable(wanted) == _comparable(found)


def _comparable(record: Any) -> str:
    """A record without the numbers of sizes that are known at run time only: each call gets new ones."""
    return re.sub(r"\bu\d+\b", "u", repr(record))


def _sizes_kept(args: Sequence[Any], kwargs: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Keep sizes that vary as they are, although PyTorch fixes one whose number an operator asks for."""
    for leaf in tree_leaves((args, kwargs)):
        shape_env: ShapeEnv | None = None
        if isinstance(leaf, FakeTensor):
            shape_env = leaf.fake_mode.shape_env
        elif isinstance(leaf, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            shape_env = leaf.node.shape_env
        if shape_env is not None:
            return shape_env.suppress_guards()
    return nullcontext()


def _record(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    recorder = _Recorder()
    with torch.no_grad(), _sizes_kept(args, kwargs), recorder:
        result = function(*args, **kwargs)
    return recorder.calls, tree_map(_description, result)
