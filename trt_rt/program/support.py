"""Which operators can be part of an engine, and why the others cannot."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from trt_rt._core.dtype_name import dtype_name
from trt_rt.compiled.node_kinds import is_number
from trt_rt.errors import CompileError
from trt_rt.program.size_ranges import SizeRanges
from trt_rt.program.sizes import NOT_IN_ENGINES
from trt_rt.program.truncation import CASTS_FOR_TRUNCATION

__all__ = ["BackendSupport", "Exclusions", "Support", "tensors_of"]

BackendSupport = Callable[[Node], "str | None"]
"""Says why a backend cannot run an operator; None where it can, or where only a try can tell."""

NOT_COMPUTED = ""
"""The reason of nodes that nobody needs a reason for: inputs, weights, arithmetic on sizes."""


@dataclass(frozen=True)
class Exclusions:
    """The operators and modules that the user wants PyTorch to run.

    Attributes
    ----------
    operators : frozenset of str
        Names such as ``aten.relu`` (all overloads) or ``aten.relu.default``.
    module_names : frozenset of str
        Submodules by their qualified name.
    module_types : tuple of type
        Submodules by their class.
    """

    operators: frozenset[str] = frozenset()
    module_names: frozenset[str] = frozenset()
    module_types: tuple[type, ...] = ()

    @classmethod
    def of(cls, operators: Iterable[Any], modules: Iterable[Any], model: Any) -> Exclusions:
        """Check and normalise what the user gave.

        Raises
        ------
        CompileError
            There is no such operator in PyTorch or no such submodule in the model; with the nearest name.
        """
        names, types = [], []
        # One name is easily given without a list around it, and a str is a list of letters.
        operators = [operators] if isinstance(operators, str) else operators
        modules = [modules] if isinstance(modules, (str, type)) else modules
        for module in modules:
            if isinstance(module, type):
                types.append(module)
            else:
                names.append(_module_name(str(module), model))
        return cls(frozenset(map(_operator_name, operators)), frozenset(names), tuple(types))

    def described(self) -> list[list[str]]:
        """Return the wishes as text that is the same in every process."""
        types = [f"{kind.__module__}.{kind.__qualname__}" for kind in self.module_types]
        return [sorted(self.operators), sorted(self.module_names), sorted(types)]

    def reason(self, node: Node) -> str | None:
        """Return why the user's wishes keep an operator out of engines; None if they do not."""
        if self.operators:
            name = str(node.target)
            if name in self.operators or name.rpartition(".")[0] in self.operators:
                return "torch_executed_ops names it"
        if self.module_names or self.module_types:
            for path, kind in (node.meta.get("nn_module_stack") or {}).values():
                if self._has_module(path, kind):
                    return f"torch_executed_modules names {path or kind}"
        return None

    def _has_module(self, path: str, kind: Any) -> bool:
        if any(path == name or path.startswith(f"{name}.") for name in self.module_names):
            return True
        # torch.export keeps the class as its full name.
        names = {kind} if isinstance(kind, str) else {f"{kind.__module__}.{kind.__qualname__}"}
        return any(f"{wanted.__module__}.{wanted.__qualname__}" in names for wanted in self.module_types)


def _operator_name(given: Any) -> str:
    if isinstance(given, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        return str(given)
    name = str(given).removeprefix("torch.ops.").replace("::", ".")
    namespace, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    known: Any = getattr(getattr(torch.ops, namespace), packet, None) if packet else None
    if known is None or (overload and overload not in known.overloads()):
        near = get_close_matches(packet, dir(torch.ops.aten), n=1)
        if known is not None:
            near = [f"{packet}.{known.overloads()[0]}"]
        hint = f"; did you mean aten.{near[0]}?" if near else ""
        raise CompileError(f"torch_executed_ops: PyTorch has no operator {str(given)!r}{hint}")
    return name


def _module_name(name: str, model: Any) -> str:
    if isinstance(model, torch.nn.Module):
        known = [found for found, _ in model.named_modules()]
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise CompileError(
                f"torch_executed_modules: {type(model).__name__} has no submodule {name!r}{hint}"
            )
    return name


@dataclass
class Support:
    """The reasons that keep the nodes of one graph out of engines.

    Parameters
    ----------
    device : torch.device
        That engines run on.
    exclusions : Exclusions
        The user's wishes.
    backend : callable
        The backend's own restrictions.
    ranges : SizeRanges
        Of the program.

    Attributes
    ----------
    found : dict
        Reasons that a try has found, by name of the node.
    """

    device: torch.device
    exclusions: Exclusions
    backend: BackendSupport
    ranges: SizeRanges
    found: dict[str, str] = field(default_factory=dict)
    _known: dict[str, str | None] = field(default_factory=dict)

    def reason(self, node: Node) -> str | None:
        """Return why a node cannot be part of an engine; None if it can; "" for what is no operator."""
        if node.name in self.found:
            return self.found[node.name]
        if node.name not in self._known:
            self._known[node.name] = self._reason(node)
        return self._known[node.name]

    def _reason(self, node: Node) -> str | None:
        if node.op != "call_function" or "val" not in node.meta:
            return NOT_COMPUTED
        if is_number(node):
            reads = node.target is not torch.ops.aten.sym_size.int and any(
                map(tensors_of, node.all_input_nodes)
            )
            return "its result is a number, which is read from a tensor" if reads else NOT_COMPUTED
        if CASTS_FOR_TRUNCATION in node.meta:
            return "truncate_double: float64 outside of the program is float32 inside"
        if node.target is operator.getitem:
            source = node.args[0]
            return self.reason(source) if isinstance(source, Node) else NOT_COMPUTED
        for reason in (_kind_of_operator, self.exclusions.reason, self._kind_of_tensors, self.backend):
            found = reason(node)
            if found is not None:
                return found
        return None

    def _kind_of_tensors(self, node: Node) -> str | None:
        for source in (node, *node.all_input_nodes):
            for tensor in tensors_of(source):
                if tensor.dtype in NOT_IN_ENGINES:
                    return f"{dtype_name(tensor.dtype)} is not computed in engines"
                if not all(map(self.ranges.is_bounded, tensor.shape)):
                    return f"the size of {source.name} has no largest value: give it one with torch._check"
                if tensor.layout is not torch.strided:
                    return f"a tensor of layout {tensor.layout} cannot be an engine's"
                is_constant = source.op == "get_attr" and tensor.ndim == 0
                if tensor.device.type != self.device.type and not is_constant:
                    return (
                        f"it has a tensor on {tensor.device}, and the program's engines run on {self.device}"
                    )
        return None


def tensors_of(node: Node) -> Sequence[torch.Tensor]:
    """Return the (fake) tensors that are a node's value or in it."""
    return [leaf for leaf in tree_leaves(node.meta.get("val")) if isinstance(leaf, torch.Tensor)]


def _kind_of_operator(node: Node) -> str | None:
    target = node.target
    if node.args and isinstance(written := node.args[0], torch._ops.OpOverload):
        return f"{written} writes into its arguments"
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"{target} holds graphs of its own, which stay in PyTorch"
    if not isinstance(target, torch._ops.OpOverload):
        return f"{getattr(target, '__name__', target)} is not an operator of PyTorch"
    if not target._schema.returns:
        return "it checks a value at run time"
    if target._schema.is_mutable:
        return "it writes into one of its arguments"
    if torch.Tag.nondeterministic_seeded in target.tags and not _draws_nothing(node):
        return "it draws random numbers"
    if not tensors_of(node):
        return "its result is not a tensor"
    return None


def _draws_nothing(node: Node) -> bool:
    """Whether an operator with dropout inside is called without any."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    values = {argument.name: argument.default_value for argument in target._schema.arguments}
    values.update(zip(values, node.args, strict=False))
    values.update(node.kwargs)
    if any(values.get(name) is False for name in ("train", "training")):
        return True
    return any(values.get(name) == 0 for name in ("dropout_p", "dropout", "p"))
