"""Writes an exported program as TorchScript, whose code calls engines by the operator."""

from __future__ import annotations

import json
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.fx import Node

from trt_rt.errors import TRTError

__all__ = ["write_torchscript"]

_INFIX: Mapping[Any, str] = {
    operator.add: "+",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.mul: "*",
    operator.sub: "-",
}
_FUNCTIONS: Mapping[Any, str] = {torch.sym_max: "max", torch.sym_min: "min", operator.neg: "-"}

_ASSERTIONS = ("aten::_assert_scalar", "aten::_assert_tensor_metadata", "aten::sym_constrain_range")
"""Operators that only check sizes, which engines check too."""

_UNCHANGED = (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION)


def write_torchscript(exported: ExportedProgram, path: Path) -> None:
    """Write a program for ``torch::jit::load``.

    PyTorch's tracer refuses programs with sizes between engines, and its compiler refuses generated code. So
    the graph is printed as TorchScript, one line for each node.

    Parameters
    ----------
    exported : torch.export.ExportedProgram
        A program whose inputs and outputs are tensors. It takes them in the order of its arguments, and
        returns one tensor, or a tuple of them.
    path : Path
        The file.

    Raises
    ------
    TRTError
        The program has something that TorchScript cannot say.
    """
    holder = torch.nn.Module()
    code = _Printer(exported, holder.register_buffer).code()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # every function of torch.jit is deprecated
        script = torch.jit.script(holder)
        try:
            script.define(code)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise TRTError(f"TorchScript cannot say what the program does: {reason}") from error
        script.save(str(path))


class _Printer:
    """The code of one program.

    Parameters
    ----------
    exported : torch.export.ExportedProgram
        The program.
    register : callable
        Takes the name and the value of each tensor that the code reads as ``self.NAME``.
    """

    def __init__(self, exported: ExportedProgram, register: Callable[[str, torch.Tensor], None]) -> None:
        self._exported = exported
        self._register = register
        self._values = {**exported.constants, **exported.state_dict}
        self._names: dict[str, str] = {}  # of placeholders that are no arguments
        self._arguments: list[str] = []
        self._lines: list[str] = []

    def code(self) -> str:
        """Return the source of ``forward``."""
        self._take_inputs()
        for node in self._exported.graph.nodes:
            if node.op == "call_function":
                self._call(node)
        self._write_back()
        arguments = ", ".join(["self", *self._arguments])
        body = "".join(f"    {line}\n" for line in self._lines)
        return f"def forward({arguments}):\n{body}    return {self._result()}\n"

    def _take_inputs(self) -> None:
        for spec in self._exported.graph_signature.input_specs:
            if not isinstance(spec.arg, TensorArgument):
                raise TRTError(
                    f"the program's input {getattr(spec.arg, 'name', '')!r} is no tensor, and a TorchScript "
                    "program of trt_rt takes tensors only."
                )
            if spec.kind == InputKind.USER_INPUT:
                self._arguments.append(f"{spec.arg.name}: Tensor")
                continue
            value = self._values.get(spec.target or "")
            if not isinstance(value, torch.Tensor):
                raise TRTError(f"the program's constant {spec.target!r} is no tensor.")
            name = f"t{len(self._names)}"
            self._names[spec.arg.name] = f"self.{name}"
            self._register(name, value.detach())

    def _call(self, node: Node) -> None:
        target = node.target
        if isinstance(target, torch._ops.OpOverload):
            if target._schema.name in _ASSERTIONS:
                return
            namespace, _, name = target._schema.name.partition("::")
            arguments = [*map(self._text, node.args)]
            arguments += [f"{key}={self._text(value)}" for key, value in node.kwargs.items()]
            function = "size" if name == "sym_size" else name
            self._lines.append(f"{node.name} = torch.ops.{namespace}.{function}({', '.join(arguments)})")
        elif target is operator.getitem:
            self._lines.append(f"{node.name} = {self._text(node.args[0])}[{node.args[1]}]")
        elif target in _INFIX:
            left, right = map(self._text, node.args)
            self._lines.append(f"{node.name} = {left} {_INFIX[target]} {right}")
        elif target in _FUNCTIONS:
            arguments = [*map(self._text, node.args)]
            self._lines.append(f"{node.name} = {_FUNCTIONS[target]}({', '.join(arguments)})")
        elif node.users:
            raise TRTError(f"the program calls {target}, which has no form in TorchScript.")

    def _write_back(self) -> None:
        """Write new values of state to where the program keeps it."""
        signature = self._exported.graph_signature
        places = {
            **{target: name for name, target in signature.inputs_to_buffers.items()},
            **{name: name for name in signature.user_inputs if isinstance(name, str)},
        }
        for spec in signature.output_specs:
            if spec.kind in _UNCHANGED and spec.target is not None:
                place = places[spec.target]
                self._lines.append(f"{self._names.get(place, place)}.copy_({getattr(spec.arg, 'name', '')})")

    def _result(self) -> str:
        specs = self._exported.graph_signature.output_specs
        [output] = self._exported.graph.find_nodes(op="output")
        results = [
            self._text(value)
            for spec, value in zip(specs, output.args[0], strict=True)
            if spec.kind == OutputKind.USER_OUTPUT
        ]
        return results[0] if len(results) == 1 else f"({', '.join(results)})"

    def _text(self, value: Any) -> str:
        if isinstance(value, Node):
            return self._names.get(value.name, value.name)
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(self._text, value))}]"
        if isinstance(value, str):
            return json.dumps(value)
        if isinstance(value, torch.device):
            return f'torch.device("{value}")'
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        if value is None or isinstance(
            value, (bool, int, float, torch.dtype, torch.layout, torch.memory_format)
        ):
            return str(value)
        raise TRTError(f"the program has an argument {value!r}, which has no form in TorchScript.")
