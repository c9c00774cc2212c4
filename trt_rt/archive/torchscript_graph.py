"""Writes the graph of a TorchScript program: its code is evaluated with nodes in place of tensors.

The code is read statement by statement. Submodules' methods are evaluated where they are called, so that one
graph results. Statements and expressions that are not named here are refused, and so are operators that are
not on the list: nothing in the code can reach Python.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves

from trt_rt.archive.pickle_reader import PickledObject
from trt_rt.archive.torchscript_objects import StoredTensor
from trt_rt.archive.torchscript_operators import find_operator, is_tensor
from trt_rt.archive.torchscript_source import ScriptSource
from trt_rt.archive.torchscript_statements import FunctionBody, TracedNumber, is_number, plain_number
from trt_rt.errors import ArchiveError

__all__ = ["GraphWriter", "Surroundings"]

_DEEPEST = 100
_MOST_NODES = 100_000
_MOST_STEPS = 1_000_000
_STEPS_OF_CALL = 100
_LARGEST = 2**63
_ATTRIBUTE = re.compile("[A-Za-z0-9_]{1,200}")
_DEVICE = re.compile("cpu|cuda(:[0-9]{1,2})?")
_ENGINE_CALL = ("tensorrt", "execute_engine")

_NUMBERS: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "div": operator.truediv,
    "eq": operator.eq,
    "floor_divide": operator.floordiv,
    "floordiv": operator.floordiv,
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "lt": operator.lt,
    "mul": operator.mul,
    "ne": operator.ne,
    "neg": operator.neg,
    "remainder": operator.mod,
    "sub": operator.sub,
}


class Surroundings(Protocol):
    """What the writer of a graph asks for."""

    def call_engine(self, pickled: PickledObject, inputs: list[Node]) -> list[Node]:
        """Add the call of an engine, and return nodes for its results."""

    def value_of_input(self, node: Node) -> None:
        """Give an input of the program its value."""

    def value_of_weight(self, path: str, stored: StoredTensor) -> torch.Tensor:
        """Return the value of a weight."""


class GraphWriter:
    """The graph of one program.

    Parameters
    ----------
    source : ScriptSource
        The code.
    constants : tuple
        Those that the code names.
    surroundings : Surroundings
        Has engines, weights and the values of inputs.
    mode : FakeTensorMode
        In which operators tell the shapes and dtypes of their results.
    device : torch.device
        Takes the place of the GPU that the code names.
    where : str
        For messages.

    Attributes
    ----------
    graph : torch.fx.Graph
        Engines are ``call_module`` nodes; all nodes have values.
    """

    def __init__(
        self,
        source: ScriptSource,
        constants: tuple[Any, ...],
        surroundings: Surroundings,
        mode: FakeTensorMode,
        device: torch.device,
        where: str,
    ) -> None:
        self.graph = Graph()
        self._source = source
        self._constants = constants
        self._surroundings = surroundings
        self._mode = mode
        self._device = device
        self._where = where
        self._paths: dict[int, str] = {}
        self._known: dict[str, Node] = {}
        self._depth = 0
        self._steps = 0

    def write(self, root: PickledObject, arguments: Sequence[Any]) -> Any:
        """Add what ``forward`` does, and return what it returns: nodes in tuples, lists and dicts.

        Parameters
        ----------
        root : PickledObject
            The module.
        arguments : sequence
            Nodes, nested in tuples, for the parameters.

        Raises
        ------
        ArchiveError
            The code says something that is not allowed or not possible.
        """
        self._paths[id(root)] = ""
        try:
            return self._call(self._source.method(root.kind, "forward"), [root, *arguments], {})
        except RecursionError as error:
            raise self._error("its code is nested too deeply") from error

    def add(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Add a call, and return its node with a value; the value itself if it is a number that is known.

        Raises
        ------
        ArchiveError
            The function refuses its arguments.
        """
        values = torch.fx.map_arg((args, dict(kwargs)), lambda node: node.meta["val"])
        value = self.evaluate(function, *values)
        if isinstance(value, (bool, int, float)):
            if abs(value) >= _LARGEST:
                raise self._error("a number is too large")
            return value
        if len(self.graph.nodes) > _MOST_NODES:
            raise self._error(f"it has more than {_MOST_NODES:,} operators")
        node = self.graph.call_function(function, args, dict(kwargs))
        node.meta["val"] = value
        return node

    def evaluate(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a function with values of the graph.

        Raises
        ------
        ArchiveError
            The function refuses its arguments.
        """
        try:
            with torch.no_grad(), self._mode:
                return function(*args, **kwargs)
        except Exception as error:  # what an operator says of its arguments' shapes and dtypes
            name = getattr(function, "__name__", str(function))
            raise self._error(f"{name} refuses its arguments: {_first_line(error)}") from error

    def items(self, node: Node) -> list[Node]:
        """Return nodes for all items of a node whose value is a list or a tuple."""
        return [self.add(operator.getitem, (node, position), {}) for position in range(len(node.meta["val"]))]

    def spend(self, steps: int) -> None:
        """Count steps: short code can call itself, or nest lists, for an exponential time."""
        self._steps += steps
        if self._steps > _MOST_STEPS:
            raise self._error(f"it needs more than {_MOST_STEPS:,} steps")

    def _error(self, what: str) -> ArchiveError:
        return ArchiveError(f"{self._where}: {what}.")

    def _call(self, function: ast.FunctionDef, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        parameters = [parameter.arg for parameter in function.args.args]
        names = dict(zip(parameters, args, strict=False))
        names.update(kwargs)
        if len(args) > len(parameters) or set(names) != set(parameters):
            raise self._error(f"{function.name[:80]!r} is called with other arguments than it has")
        self.spend(_STEPS_OF_CALL)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error("its methods call one another too deeply")
        returned = FunctionBody(self, names).run(function.body)
        self._depth -= 1
        return returned[0] if returned else None

    def method(self, owner: PickledObject, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Evaluate a method of a module."""
        return self._call(self._source.method(owner.kind, name), [owner, *args], kwargs)

    def function(self, module: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Evaluate a function of the file."""
        return self._call(self._source.function(module, name), args, kwargs)

    def attribute(self, owner: PickledObject, name: str) -> Any:
        """Return an attribute of a module."""
        state = owner.state
        if type(state) is not dict or name not in state or not _ATTRIBUTE.fullmatch(name):
            raise self._error(f"a module has no attribute {name[:80]!r}")
        path = f"{self._paths.get(id(owner), '')}.{name}".removeprefix(".")
        return self._loaded(path, state[name])

    def constant(self, name: str) -> Any:
        """Return a constant by the name that the code gives it."""
        number = name.removeprefix("c")
        if not number.isdecimal() or int(number) >= len(self._constants):
            raise self._error(f"it has no constant {name[:80]!r}")
        return self._loaded(f"CONSTANTS.{name}", self._constants[int(number)])

    def _loaded(self, path: str, value: Any) -> Any:
        self.spend(1)
        if isinstance(value, PickledObject):
            self._paths.setdefault(id(value), path)
            return value
        if isinstance(value, StoredTensor):
            if path not in self._known:
                tensor = self._surroundings.value_of_weight(path, value)
                self._known[path] = self.graph.create_node("get_attr", path)
                self._known[path].meta["val"] = tensor
            return self._known[path]
        if isinstance(value, (list, tuple)):
            return type(value)(self._loaded(f"{path}_{number}", item) for number, item in enumerate(value))
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise self._error(f"the attribute {path[:80]!r} is neither a tensor nor a number")

    def operator(self, namespace: str, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Add the call of an operator, and return its results."""
        if (namespace, name) == _ENGINE_CALL:
            return self._engine(args, kwargs)
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Node) and "val" not in value.meta:
                self._surroundings.value_of_input(value)
        if namespace == "prim" and name == "NumToTensor" and len(args) == 1:
            return TracedNumber(args[0])
        if namespace != "aten":
            raise self._refused(namespace, name)
        if name in _NUMBERS and not kwargs and all(map(is_number, args)):
            found = self.add(_NUMBERS[name], tuple(map(plain_number, args)), {})
            return TracedNumber(found) if any(isinstance(each, TracedNumber) for each in args) else found
        if name == "size" and args and is_tensor(args[0]):
            return self._size(*args)
        if name == "dim" and len(args) == 1 and is_tensor(args[0]):
            return args[0].meta["val"].dim()
        if name == "len" and len(args) == 1 and isinstance(args[0], (list, tuple)):
            return len(args[0])
        if name in ("__is__", "__isnot__") and len(args) == 2 and None in args:
            return (args[0] is args[1]) == (name == "__is__")
        args, kwargs = (
            [self._tensors(each) for each in args],
            {key: self._tensors(value) for key, value in kwargs.items()},
        )
        call = find_operator(name, args, kwargs)
        if call is None:
            raise self._refused(namespace, name)
        result = self.add(call.operator, call.args, call.kwargs)
        if isinstance(result, Node) and isinstance(result.meta["val"], (list, tuple)):
            return type(result.meta["val"])(self.items(result))
        return result

    def _refused(self, namespace: str, name: str) -> ArchiveError:
        return self._error(
            f"it calls {namespace[:40]}::{name[:80]} in a way that is not among the operators that files may "
            "call"
        )

    def _size(self, tensor: Node, dimension: Any = None) -> Any:
        rank = tensor.meta["val"].dim()
        if dimension is None:
            return [self._size(tensor, axis) for axis in range(rank)]
        if type(dimension) is not int or not -rank <= dimension < rank:
            raise self._error(f"a tensor of {rank} dimensions has no size {dimension!r}")
        return self.add(torch.ops.aten.sym_size.int, (tensor, dimension), {})

    def _tensors(self, value: Any) -> Any:
        """A value as an operator takes it: traced numbers become tensors again."""
        if isinstance(value, TracedNumber):
            dtype = torch.float64 if isinstance(value.value, float) else torch.int64
            return self.add(torch.ops.aten.scalar_tensor.default, (value.value,), {"dtype": dtype})
        if isinstance(value, (list, tuple)):
            return [self._tensors(item) for item in value]
        return value

    def _engine(self, args: list[Any], kwargs: dict[str, Any]) -> list[Node]:
        if len(args) != 2 or kwargs or not isinstance(args[1], PickledObject) or type(args[0]) is not list:
            raise self._error("an engine is called with other arguments than tensors and an engine")
        inputs = [self._tensors(each) for each in args[0]]
        if not all(isinstance(each, Node) for each in inputs):
            raise self._error("an engine is called with something else than tensors")
        return self._surroundings.call_engine(args[1], inputs)

    def device(self, text: Any) -> torch.device:
        """Return the device that a text names, with the program's GPU for every GPU."""
        if type(text) is not str or not _DEVICE.fullmatch(text):
            raise self._error(f"the device {str(text)[:40]!r} is not allowed")
        return self._device if text.startswith("cuda") else torch.device("cpu")

    def refuse(self, node: ast.AST) -> ArchiveError:
        """Return the error for a statement or an expression that is not evaluated."""
        kind = type(node).__name__
        if isinstance(node, (ast.For, ast.While, ast.If, ast.IfExp)):
            return self._error(
                f"line {getattr(node, 'lineno', 0)} of its code is a {kind}: control flow that depends on "
                "values cannot be loaded. Save the model as an exported program (.ep, .pt2)"
            )
        return self._error(
            f"line {getattr(node, 'lineno', 0)} of its code has a {kind}, which is not allowed"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
