"""Prints an exported program as TorchScript, and makes a module of the text.

``torch.jit.trace`` would fix sizes that vary, and ``torch.jit.script`` cannot read what torch.fx writes. So
the graph is printed as source code, statement by statement, and defined on a module that holds its tensors.
"""

from __future__ import annotations

import json
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._pytree import TreeSpec

from trt_rt.errors import CompileError

__all__ = ["torchscript_calls", "torchscript_module"]

_SIGNS: Mapping[Any, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.truediv: "/",
    operator.pow: "**",
    operator.eq: "==",
    operator.ne: "!=",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
}
_FUNCTIONS: Mapping[Any, str] = {torch.sym_max: "max", torch.sym_min: "min", torch.sym_float: "float"}
_CHECKS_OF_SIZES = ("_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range", "_check")


@contextmanager
def torchscript_calls() -> Iterator[None]:
    """Silence what PyTorch says of every call of ``torch.jit``: that TorchScript is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r".*torch\.jit\.\w+.* is (deprecated|not supported)", DeprecationWarning
        )
        yield


def torchscript_module(program: ExportedProgram, *, flat_results: bool = False) -> torch.jit.ScriptModule:
    """Return a program as a ScriptModule that computes the same, for every size that the program takes.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        Takes tensors, and is called with them by position. Its results are tensors, nested in tuples, lists
        and dicts.
    flat_results : bool
        Whether the module returns one tensor, or one tuple of all of them, instead of the program's nesting.

    Returns
    -------
    torch.jit.ScriptModule
        For inference: its parameters and buffers have the program's memory, and none requires gradients.

    Raises
    ------
    CompileError
        An argument, a result or an operator cannot be expressed in TorchScript.
    """
    module = program.module(check_guards=False)
    writer = _Writer(module)
    source = writer.write(None if flat_results else program.call_spec.out_spec)
    with torchscript_calls():
        script = torch.jit.script(writer.holder)
        try:
            script.define(source)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CompileError(f"TorchScript cannot express the program: {reason}") from error
    return script.eval()


class _Writer:
    """Writes the ``forward`` of one graph.

    Attributes
    ----------
    holder : torch.nn.Module
        Has the tensors that the text names.
    """

    def __init__(self, module: torch.fx.GraphModule) -> None:
        self._module = module
        self._names: dict[Node, str] = {}
        # Of a class of its own: TorchScript gives modules of one class one type, and that one forward.
        self.holder: torch.nn.Module = type("Program", (torch.nn.Module,), {"__module__": __name__})()

    def write(self, out_spec: TreeSpec | None) -> str:
        """Return the source; without `out_spec`, results are one value or one tuple."""
        graph = self._module.graph
        for node in reversed(list(graph.nodes)):
            if node.op == "call_function" and not node.users and _is_check(node):
                graph.erase_node(node)
        graph.eliminate_dead_code()
        parameters = []
        lines = []
        for node in graph.nodes:
            self._names[node] = f"v{len(self._names)}_{re.sub(r'[^A-Za-z0-9_]', '_', node.name)}"
            if node.op == "placeholder":
                if not isinstance(node.meta.get("val"), torch.Tensor):
                    raise CompileError(
                        f"the argument {node.name} is no tensor: a TorchScript module takes tensors only"
                    )
                self._names[node] = f"{re.sub(r'[^A-Za-z0-9_]', '_', node.name)}"
                parameters.append(f"{self._names[node]}: Tensor")
            elif node.op == "get_attr":
                self._names[node] = self._held(str(node.target))
            elif node.op == "call_function":
                lines.append(f"{self._names[node]} = {self._call(node)}")
            elif node.op == "output":
                results = [self._argument(result) for result in _leaves(node.args[0])]
                lines.append(
                    f"return {_flat(results) if out_spec is None else _nested(out_spec, iter(results))}"
                )
            else:
                raise CompileError(f"TorchScript cannot express {node.format_node()}")
        text = "".join(f"    {line}\n" for line in lines)
        return f"def forward({', '.join(['self', *parameters])}):\n{text}"

    def _held(self, path: str) -> str:
        """Give the holder a tensor of the module, under a name of its own."""
        value: Any = self._module
        for name in path.split("."):
            value = getattr(value, name)
        if not isinstance(value, torch.Tensor):
            raise CompileError(f"TorchScript cannot hold {path}, which is a {type(value).__name__}")
        name = "held_" + re.sub(r"[^A-Za-z0-9_]", "_", path)
        if not hasattr(self.holder, name):
            tensor = value.detach()  # parameters that require gradients would make results require them
            if isinstance(value, torch.nn.Parameter):
                self.holder.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
            else:
                self.holder.register_buffer(name, tensor)
        return f"self.{name}"

    def _call(self, node: Node) -> str:
        target: Any = node.target
        arguments = [self._argument(argument) for argument in node.args]
        if target is operator.getitem:
            return f"{arguments[0]}[{arguments[1]}]"
        if target in _SIGNS:
            return f"({arguments[0]} {_SIGNS[target]} {arguments[1]})"
        if target is operator.neg:
            return f"(-{arguments[0]})"
        if target in _FUNCTIONS:
            return f"{_FUNCTIONS[target]}({', '.join(arguments)})"
        if target is torch.ops.aten.sym_size.int:
            return f"torch.ops.aten.size({', '.join(arguments)})"
        if target is torch.ops.aten.sym_numel.default:
            return f"torch.ops.aten.numel({', '.join(arguments)})"
        if not isinstance(target, torch._ops.OpOverload):
            raise CompileError(f"TorchScript cannot express {getattr(target, '__name__', target)}")
        for name, value in node.kwargs.items():
            arguments.append(f"{name}={self._argument(value)}")
        name = str(target._schema.name).replace("::", ".")
        return f"torch.ops.{name}({', '.join(arguments)})"

    def _argument(self, value: Any) -> str:
        if isinstance(value, Node):
            return self._names[value]
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(self._argument, value))}]"
        if isinstance(value, float) and not math.isfinite(value):
            return f"float('{value}')"
        if value is None or isinstance(value, (bool, int, float)):
            return repr(value)
        if isinstance(value, str):
            return json.dumps(value, ensure_ascii=False)  # has the escapes of C, as TorchScript's literals
        if isinstance(value, torch.device):
            return f'torch.device("{value}")'
        if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
            return str(value)
        raise CompileError(f"TorchScript cannot express the argument {value!r}")


def _is_check(node: Node) -> bool:
    """Whether a node only tells the compiler, or checks at run time, which sizes there are."""
    name = getattr(getattr(node.target, "_schema", None), "name", "").partition("::")[2]
    return name.startswith(_CHECKS_OF_SIZES)


def _leaves(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (list, tuple)) else [result]


def _flat(results: list[str]) -> str:
    return results[0] if len(results) == 1 else f"({', '.join(results)})"


def _nested(spec: TreeSpec, results: Iterator[str]) -> str:
    if spec.is_leaf():
        return next(results)
    parts = [_nested(child, results) for child in spec.children()]
    writers: dict[Any, Callable[[], str]] = {
        tuple: lambda: f"({', '.join(parts)}{',' if len(parts) == 1 else ''})",
        list: lambda: f"[{', '.join(parts)}]",
        dict: lambda: (
            "{" + ", ".join(f'"{key}": {part}' for key, part in zip(spec.context, parts, strict=True)) + "}"
        ),
    }
    if spec.type not in writers:
        raise CompileError(f"the program returns a {spec.type}: TorchScript returns tuples, lists and dicts")
    return writers[spec.type]()
