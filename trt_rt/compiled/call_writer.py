"""Writes the Python function that a program's call is.

The function is straight-line code: it takes the arguments apart, calls engines and PyTorch operators, and
puts the results together. Everything that it calls is a global name, so that a call costs no attribute
look-ups. (The code that torch.fx prints names functions by their modules and submodules by attributes of
``nn.Module``.)
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph, Node

from trt_rt._core.shared_memory import shared_pair
from trt_rt.compiled.calling_convention import CallingConvention
from trt_rt.compiled.generated_call import GeneratedCall
from trt_rt.compiled.nesting import Names, argument_code, refuse_constant, result_code
from trt_rt.compiled.node_kinds import is_number, is_view
from trt_rt.compiled.size_bounds import bounds
from trt_rt.compiled.torch_functions import TorchFunctions
from trt_rt.errors import InputTypeError, InputValueError

__all__ = ["write_call"]


def write_call(
    convention: CallingConvention,
    graph: Graph,
    ranges: Mapping[Any, Any],
    functions: TorchFunctions | None = None,
) -> GeneratedCall:
    """Write the call of a program.

    Parameters
    ----------
    convention : CallingConvention
        Says how arguments and results are nested.
    graph : torch.fx.Graph
        In which engines are ``call_module`` nodes.
    ranges : mapping
        Of symbol to the range of sizes for which the program is right: for checks of inputs that no engine
        checks.
    functions : TorchFunctions, optional
        Chooses what is called for operators. Default: the cheapest functions that do the same.
    """
    return _Writer(convention, graph, ranges, functions or TorchFunctions()).write()


class _Writer:
    def __init__(
        self,
        convention: CallingConvention,
        graph: Graph,
        ranges: Mapping[Any, Any],
        functions: TorchFunctions,
    ) -> None:
        self._convention = convention
        self._graph = graph
        self._ranges = ranges
        self._names = Names()
        self._locals: dict[Node, str] = {}
        self._functions: dict[Any, str] = {}
        self._torch = functions
        self._unpacked: set[Node] = set()
        self._engines: dict[str, str] = {}
        self._weights: dict[str, str] = {}

    def write(self) -> GeneratedCall:
        for reserved in _RESERVED:
            self._names.reserve(reserved)
        parameters, passed_on, lines, leaves = argument_code(
            self._names, self._convention.in_spec, self._convention.signature
        )
        placeholders = [node for node in self._graph.nodes if node.op == "placeholder"]
        self._locals.update(zip(placeholders, leaves, strict=True))
        for node, example in zip(placeholders, self._convention.examples, strict=True):
            lines += self._checks(node, example)
        lines += self._check_of_shared_memory(placeholders)
        last_uses = _last_uses(self._graph)
        body: list[str] = []
        for node in self._graph.nodes:
            if node.op in ("call_function", "call_module") and node not in self._unpacked:
                body.append(self._call(node))
                body += self._forget(last_uses.get(node, ()))
        results: Any = self._graph.output_node().args[0]
        returned = (self._argument(result) for result in results)
        body.append(f"return {result_code(self._names, self._convention.out_spec, returned)}")
        operators = [
            node for node in self._graph.nodes if node.op == "call_function" and not _is_only_python(node)
        ]
        if operators:
            body = self._without_gradients(body)
        text = "".join(f"    {line}\n" for line in [*lines, *body])
        computes = not all(map(is_view, operators))
        return GeneratedCall(
            parameters=parameters,
            arguments=passed_on,
            body=text,
            constants=self._names.values,
            functions=frozenset(self._functions.values()),
            engines=self._engines,
            weights=self._weights,
            computes=computes,
            convention=self._convention,
            graph=self._graph,
            ranges=self._ranges,
            branch=self._torch.branch,
        )

    def _without_gradients(self, body: list[str]) -> list[str]:
        """As torch.no_grad does, which takes longer than an operator.

        Python looks for signals when a call has returned, so the switch lies within ``try``.
        """
        was_on = self._names.local("grad_was_enabled")
        is_on = self._names.bind("is_grad_enabled", torch.is_grad_enabled)
        switch = self._names.bind("set_grad_enabled", torch._C._set_grad_enabled)
        return [
            f"{was_on} = {is_on}()",
            "try:",
            f"    {switch}(False)",
            *(f"    {line}" for line in body),
            "finally:",
            f"    {switch}({was_on})",
        ]

    def _call(self, node: Node) -> str:
        expression = self._expression(node)
        if not node.users:
            return expression
        if _is_unpacked(node):
            items = sorted(node.users, key=_position)
            self._unpacked.update(items)
            self._locals.update({item: self._names.local(item.name) for item in items})
            return f"{', '.join(self._locals[item] for item in items)} = {expression}"
        self._locals[node] = self._names.local(node.name)
        return f"{self._locals[node]} = {expression}"

    def _expression(self, node: Node) -> str:
        if node.target is operator.getitem:
            source, index = node.args
            return f"{self._argument(source)}[{self._argument(index)}]"
        if node.op == "call_module":
            function = self._named(self._engines, str(node.target))
        else:
            target = self._torch.function(node)
            if target not in self._functions:
                self._functions[target] = self._names.bind(f"torch_{_short_name(node)}", target)
            function = self._functions[target]
        arguments = [self._argument(argument) for argument in node.args]
        arguments += [f"{key}={self._argument(value)}" for key, value in node.kwargs.items()]
        return f"{function}({', '.join(arguments)})"

    def _argument(self, value: Any) -> str:
        if isinstance(value, Node):
            return self._weight(value) if value.op == "get_attr" else self._locals[value]
        if isinstance(value, (list, tuple)):
            parts = ", ".join(map(self._argument, value))
            return f"[{parts}]" if isinstance(value, list) else f"({parts}{',' if len(value) == 1 else ''})"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key!r}: {self._argument(item)}" for key, item in value.items()) + "}"
        if isinstance(value, slice):
            return f"slice({', '.join(map(self._argument, (value.start, value.stop, value.step)))})"
        if value is None or value is Ellipsis or type(value) in (bool, int, str):
            return repr(value)
        if type(value) is float and repr(value).strip("-").replace(".", "").replace("e-", "").isdigit():
            return repr(value)
        functions = self._functions.values()
        for name, known in self._names.values.items():
            if known is value and name not in functions:  # a call may put another function under that name
                return name
        return self._names.bind("constant", value)

    def _weight(self, node: Node) -> str:
        return self._named(self._weights, str(node.target))

    def _named(self, table: dict[str, str], path: str) -> str:
        for name, known in table.items():
            if known == path:
                return name
        name = self._names.local(path)
        table[name] = path
        return name

    def _forget(self, nodes: Any) -> list[str]:
        locals_ = [self._locals[node] for node in nodes if node in self._locals]
        return [f"del {', '.join(locals_)}"] if locals_ else []

    def _checks(self, node: Node, example: Any) -> list[str]:
        """Lines that refuse an argument for which the program is not right, unless an engine looks at it."""
        local = self._locals[node]
        if is_number(node):
            return []
        if not isinstance(example, torch.Tensor):
            constant = self._names.bind("constant", example)
            refuse = self._names.bind("refuse_constant", refuse_constant(local, example))
            return [f"if {local} is not {constant}: {refuse}({local})"]
        if any(user.op == "call_module" for user in node.users) or not node.users:
            return []
        tensor = node.meta["val"]
        limits = [bounds(size, self._ranges) for size in tensor.shape]
        refuse = self._names.bind("refuse_tensor", _refuse_tensor(local, tensor.dtype, limits))
        dtype = self._argument(tensor.dtype)
        if all(low == high for low, high in limits):
            shape = self._names.bind("shape", tuple(low for low, _ in limits))
            return [f"if {local}.shape != {shape} or {local}.dtype is not {dtype}: {refuse}({local})"]
        sizes = self._names.local("sizes")
        wrong = [f"len({sizes}) != {len(limits)}"]
        for axis, (low, high) in enumerate(limits):
            wrong.append(
                f"{sizes}[{axis}] != {low}" if low == high else f"not {low} <= {sizes}[{axis}] <= {high}"
            )
        return [
            f"{sizes} = {local}.shape",
            f"if {' or '.join(wrong)} or {local}.dtype is not {dtype}: {refuse}({local})",
        ]

    def _check_of_shared_memory(self, placeholders: Sequence[Node]) -> list[str]:
        """A line that refuses an argument that the program writes to and that shares memory with another.

        The program writes at its end. The model would see the new values in the other argument before.
        """
        written = {
            node.args[0] for node in self._graph.nodes if node.target is torch.ops.aten.copy_.default
        } & set(placeholders)
        tensors = [node for node in placeholders if node.users and isinstance(node.meta["val"], torch.Tensor)]
        if not written or len(tensors) == 1:
            return []
        names = [self._locals[node] for node in tensors]
        changed = [position for position, node in enumerate(tensors) if node in written]
        refuse = self._names.bind("refuse_shared_memory", _refuse_shared_memory(names, changed))
        return [f"{refuse}(({', '.join(names)}))"]


def _is_unpacked(node: Node) -> bool:
    """Whether a node is an engine all of whose results are picked, each once."""
    if node.op != "call_module" or not isinstance(node.meta["val"], tuple):
        return False
    picked = [_position(user) for user in node.users if user.target is operator.getitem]
    return sorted(picked) == list(range(len(node.meta["val"]))) and len(picked) == len(node.users)


_RESERVED = (
    "call",
    "dict",
    "forward",
    "global_forward_hooks",
    "global_forward_pre_hooks",
    "len",
    "list",
    "own_forward_hooks",
    "own_forward_pre_hooks",
    "tuple",
    "type",
    "with_hooks",
)
"""Names that the code itself uses."""


def _position(item: Node) -> int:
    """Which result of an operator a node picks."""
    position = item.args[1]
    assert isinstance(position, int)
    return position


def _short_name(node: Node) -> str:
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target).partition(".")[2].partition(".")[0]
    return str(getattr(target, "__name__", "function"))


def _is_only_python(node: Node) -> bool:
    """Whether a node computes with numbers, or picks a tensor from a tuple, and so needs no gradient mode."""
    return is_number(node) or node.target is operator.getitem or "val" not in node.meta


def _last_uses(graph: Graph) -> Mapping[Node, list[Node]]:
    """The values that are not needed after a node, which then are let go of: their memory may be large."""
    seen: set[Node] = set(graph.output_node().all_input_nodes)
    found: dict[Node, list[Node]] = {}
    for node in reversed(graph.nodes):
        if node.op not in ("call_function", "call_module"):
            continue
        for source in node.all_input_nodes:
            if source not in seen and source.op in ("call_function", "call_module"):
                found.setdefault(node, []).append(source)
            seen.add(source)
    return found


def _refuse_shared_memory(
    names: Sequence[str], written: Sequence[int]
) -> Callable[[Sequence[torch.Tensor]], None]:
    def refuse(tensors: Sequence[torch.Tensor]) -> None:
        if (pair := shared_pair(tensors, written)) is not None:
            index, other = pair
            raise InputValueError(
                f"the model writes to {names[index]}, which shares memory with {names[other]}. The program "
                "writes at its end, so its results would differ from the model's: pass a clone() of one of "
                "them"
            )

    return refuse


def _refuse_tensor(
    name: str, dtype: torch.dtype, limits: list[tuple[int, int]]
) -> Callable[[torch.Tensor], None]:
    def refuse(tensor: torch.Tensor) -> None:
        sizes = ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in limits)
        if not isinstance(tensor, torch.Tensor):
            raise InputTypeError(f"{name}: a tensor is needed, not a {type(tensor).__name__}")
        if tensor.dtype is not dtype:
            raise InputTypeError(
                f"{name}: the program was compiled for {dtype}, and this is {tensor.dtype}; nothing is cast "
                "silently"
            )
        raise InputValueError(
            f"{name}: the program was compiled for the shape ({sizes}), and this is {tuple(tensor.shape)}"
        )

    return refuse
