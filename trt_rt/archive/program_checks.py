"""Checks what a file's program names before PyTorch's deserializer looks it up.

That deserializer finds operators by attributes of ``torch``, evaluates expressions, and writes Python code
with the names that it is given. After these checks a program has operators of a list, names that are
identifiers, arguments as the operators declare them, expressions that are parsed, and neither guards nor
metadata.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch._export.serde import schema

from trt_rt.archive.number_growth import NumberBits
from trt_rt.archive.operator_calls import check_call
from trt_rt.archive.symbolic import ExpressionError, parse_expression
from trt_rt.archive.tree_specs import read_tree_spec
from trt_rt.errors import ArchiveError
from trt_rt.reference.allowed_operators import ALLOWED_OPERATORS

__all__ = ["ATEN_OPERATORS", "EXECUTE_ENGINE", "ProgramChecks", "operator_target"]

EXECUTE_ENGINE = "torch.ops.trt_rt.execute_engine.default"

_LONGEST_NAME = 1000
_MOST_DEVICES = 64
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_PATH_PART = re.compile("[A-Za-z0-9_]+")
_SYMBOL = re.compile("[a-z]{1,4}[0-9]{1,9}")
_OPERATOR = re.compile(r"[A-Za-z0-9_]+\.[A-Za-z0-9_]+\.[A-Za-z0-9_]+")

_OF_NUMBERS = frozenset(
    [
        f"_operator.{name}"
        for name in [
            "add",
            "sub",
            "mul",
            "floordiv",
            "mod",
            "truediv",
            "neg",
            "pos",
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "and_",
            "or_",
        ]
    ]
    + [f"torch.sym_{name}" for name in ["not", "int", "float", "ite", "max", "min", "sqrt", "sum"]]
    + ["_operator.getitem", "math.trunc", "math.floor", "math.ceil"]
)
"""Functions of sizes. Powers and shifts are left out: their results grow without bound."""

_WRITING = (
    "copy_.default",
    "fill_.Scalar",
    "fill_.Tensor",
    "zero_.default",
    "index_put_.default",
    "_assert_tensor_metadata.default",
    *(f"{name}_.{kind}" for name in ("add", "sub", "mul", "div") for kind in ("Tensor", "Scalar")),
    *(
        f"{name}_.default"
        for name in ("relu", "sigmoid", "tanh", "silu", "hardtanh", "hardswish", "leaky_relu")
    ),
)
"""Operators that the reference backend has no need of, because plans are functional."""

_LOOP = "torch.ops.higher_order.while_loop"
_WITH_GRAPHS = frozenset({"torch.ops.higher_order.cond", _LOOP})

ATEN_OPERATORS = frozenset(f"torch.ops.{name}" for name in ALLOWED_OPERATORS) | {
    f"torch.ops.aten.{name}" for name in _WRITING
}
"""The operators of PyTorch that a program may call."""

_INPUTS = ("user_input", "parameter", "buffer", "tensor_constant", "constant_input")
_OUTPUTS = ("user_output", "buffer_mutation", "user_input_mutation", "parameter_mutation")
_REFUSED_ARGUMENTS = ("as_custom_obj", "as_graph", "as_operator", "as_string_to_argument")


def operator_target(name: str) -> str:
    """Return how programs in files name an operator.

    Parameters
    ----------
    name : str
        Such as ``torchvision::nms`` or ``torchvision.nms.default``.

    Raises
    ------
    ArchiveError
        It is not the name of an operator.
    """
    full = str(name).removeprefix("torch.ops.").replace("::", ".")
    full = full if full.count(".") == 2 else f"{full}.default"
    if not _OPERATOR.fullmatch(full):
        raise ArchiveError(f"{name!r} is not the name of an operator, such as 'torchvision::nms'.")
    return f"torch.ops.{full}"


class ProgramChecks:
    """The checks of one program, which also make it fit for the deserializer.

    Parameters
    ----------
    where : str
        File and record, for messages.
    operators : collection of str
        Names of operators outside of PyTorch that the program may call.
    device : torch.device, optional
        The GPU that takes the place of the one that the program names.
    """

    def __init__(
        self, where: str, operators: Collection[str] = (), *, device: torch.device | None = None
    ) -> None:
        self._where = where
        self._device = device
        self._operators = (
            ATEN_OPERATORS | _OF_NUMBERS | {EXECUTE_ENGINE} | set(map(operator_target, operators))
        )

    def check(self, program: schema.ExportedProgram) -> None:
        """Check a program; guards and metadata are taken out, and expressions are replaced by parsed ones.

        Raises
        ------
        ArchiveError
            It names what is not allowed, or contradicts itself.
        """
        module = program.graph_module
        if program.schema_version.major != schema.SCHEMA_VERSION[0]:
            raise self._error(
                f"its schema has version {program.schema_version.major}, and this PyTorch reads "
                f"{schema.SCHEMA_VERSION[0]}. Load it with the PyTorch that wrote it, "
                f"{program.torch_version!r}"
            )
        for symbol in program.range_constraints:
            if not _SYMBOL.fullmatch(symbol):
                raise self._error(f"{symbol[:60]!r} is not the name of a size")
        self._check_graph(module.graph, NumberBits.of_inputs(module.graph.inputs))
        self._check_signature(module.signature)
        root = next((entry for entry in module.module_call_graph if entry.fqn == ""), None)
        if root is None or root.signature is None:
            raise self._error("it does not tell how its arguments are nested")
        _, root.signature.in_spec = read_tree_spec(root.signature.in_spec, self._where)
        _, root.signature.out_spec = read_tree_spec(root.signature.out_spec, self._where)
        for name in root.signature.forward_arg_names or ():
            self._check_name(name)
        root.signature.inputs, root.signature.outputs = [], []
        module.module_call_graph = [root]
        module.metadata, module.treespec_namedtuple_fields = {}, {}
        program.guards_code = []
        program.verifiers = ["TRAINING"]

    def _error(self, what: str) -> ArchiveError:
        return ArchiveError(f"{self._where}: {what}.")

    def _check_name(self, name: str) -> None:
        if (
            not _NAME.fullmatch(name)
            or keyword.iskeyword(name)
            or len(name) > _LONGEST_NAME
            or "__" in name[:2]
        ):
            raise self._error(f"{name[:60]!r} is not allowed as a name: it must be an identifier")

    def check_path(self, path: str) -> None:
        """Check the name of a weight, such as ``layer.0.weight``."""
        parts = path.split(".")
        if len(path) > _LONGEST_NAME or not all(
            _PATH_PART.fullmatch(part) and not part.startswith("__") for part in parts
        ):
            raise self._error(f"{path[:60]!r} is not allowed as the name of a weight")

    def _check_graph(self, graph: schema.Graph, bits: NumberBits) -> None:
        if graph.custom_obj_values:
            raise self._error("it has objects of classes, and only tensors and numbers are allowed")
        for name, tensor in graph.tensor_values.items():
            self._check_name(name)
            self._check_tensor(tensor)
        for values in (graph.sym_int_values, graph.sym_float_values, graph.sym_bool_values):
            for name, value in values.items():
                self._check_name(name)
                self._read_expression(value)
        for argument in (*graph.inputs, *graph.outputs):
            self._check_argument(argument)
        for node in graph.nodes:
            self._check_node(node)
            try:
                self._check_values(node, bits)
            except ArchiveError:
                raise
            except (TypeError, ValueError) as error:
                short = node.target.removeprefix("torch.ops.")
                raise self._error(f"{node.name or ''!r} cannot call {short[:80]!r} so: {error}") from error

    def _check_values(self, node: schema.Node, bits: NumberBits) -> None:
        """Check the arguments of a call, and how long the numbers are that it gives."""
        if node.target in _OF_NUMBERS:
            bits.add_call(node)
        elif node.target in _WITH_GRAPHS:
            arguments = [given.arg for given in node.inputs]
            longest = max(bits.most(arguments), NumberBits.OF_SIZE)
            for argument in arguments:
                if argument.type == "as_graph":
                    graph = argument.value.graph
                    inside = NumberBits.of_inputs(graph.inputs, longest)
                    self._check_graph(graph, inside)
                    if node.target == _LOOP:
                        inside.check_loop(graph.outputs)
                    longest = max(longest, inside.most(graph.outputs))
            bits.add_results(node, longest)
        else:
            if node.target in ATEN_OPERATORS:
                check_call(node)
            bits.add_results(node)

    def _check_tensor(self, tensor: schema.TensorMeta) -> None:
        self._check_device(tensor.device)
        for size in (*tensor.sizes, *tensor.strides, tensor.storage_offset):
            self._read_expression(size)

    def _check_device(self, device: schema.Device) -> None:
        if device.type not in ("cpu", "cuda") or not 0 <= (device.index or 0) < _MOST_DEVICES:
            raise self._error(f"the device {device.type[:20]!r} is not allowed")
        if device.type == "cuda" and self._device is not None:
            device.index = self._device.index

    def _read_expression(self, value: Any) -> None:
        """Replace the text of an expression by the expression, which the deserializer takes as it is."""
        if value.type == "as_expr":
            try:
                value.value.expr_str = parse_expression(value.value.expr_str)
            except ExpressionError as error:
                raise self._error(str(error)) from error

    def _check_node(self, node: schema.Node) -> None:
        if node.target not in self._operators and node.target not in _WITH_GRAPHS:
            short = node.target.removeprefix("torch.ops.")
            raise self._error(
                f"it calls {short[:80]!r}, which is not among the operators that files may call. If it is an "
                "operator of yours and you trust the file, name it in operators="
            )
        node.metadata = {}
        if node.name is not None:
            self._check_name(node.name)
        for given in node.inputs:
            if given.name and not _NAME.fullmatch(given.name):
                raise self._error(f"{given.name[:60]!r} is not the name of an argument")
            if given.arg.type != "as_graph":
                self._check_argument(given.arg)
            elif node.target in _WITH_GRAPHS:
                self._check_name(given.arg.value.name)  # the graph itself is checked with its numbers
            else:
                raise self._error(f"{node.target[:80]!r} takes no graph")
        for output in node.outputs:
            self._check_argument(output)

    def _check_argument(self, argument: schema.Argument) -> None:
        kind, value = argument.type, argument.value
        if kind in _REFUSED_ARGUMENTS:
            raise self._error(f"an argument of the kind {kind!r} is not allowed")
        if kind == "as_device":
            self._check_device(value)
        elif kind == "as_tensor":
            self._check_name(value.name)
        elif isinstance(value, list):
            self._check_names_in(value)
        else:
            self._check_names_in([value])

    def _check_names_in(self, values: Iterable[Any]) -> None:
        """Check names in arguments that are lists, unions, or lists of lists."""
        for value in values:
            if isinstance(value, list):
                self._check_names_in(value)
                continue
            name = getattr(value, "name", None)
            if hasattr(value, "_type"):
                # PyTorch's own type of string refuses to be compared with other kinds.
                name = value.value if str(value.type) == "as_name" else getattr(value.value, "name", None)
            if name is not None:
                self._check_name(name)

    def _check_signature(self, signature: schema.GraphSignature) -> None:
        for spec in signature.input_specs:
            if spec.type not in _INPUTS:
                raise self._error(f"an input of the kind {spec.type!r} is not allowed")
            value = spec.value
            if spec.type == "constant_input":
                self._check_name(value.name)
            elif spec.type == "user_input":
                self._check_argument(value.arg)
            else:
                self._check_name(value.arg.name)
                self.check_path(_target(value))
        for result in signature.output_specs:
            if result.type not in _OUTPUTS:
                raise self._error(f"an output of the kind {result.type!r} is not allowed")
            value = result.value
            if result.type == "user_output":
                self._check_argument(value.arg)
            else:
                self._check_name(value.arg.name)
                target = getattr(value, "user_input_name", None)
                if target is not None:
                    self._check_name(target)
                else:
                    self.check_path(_target(value))


def _target(spec: Any) -> str:
    """The name of a weight in an input or an output."""
    for name in ("parameter_name", "buffer_name", "tensor_constant_name"):
        found = getattr(spec, name, None)
        if found is not None:
            return str(found)
    raise AssertionError(f"{spec} has no weight")
