"""From a TorchScript file of Torch-TensorRT to a program."""

from __future__ import annotations

import ast
import hashlib
import keyword
import operator
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_flatten

from trt_rt.archive.container import Container
from trt_rt.archive.devices import choose_device
from trt_rt.archive.engine_pickle import ENGINE, PickledEngine, engine_of_state
from trt_rt.archive.guarded_functions import GuardedFunctions, check_constants
from trt_rt.archive.parameters import signature_of_names
from trt_rt.archive.partitions import partition_of_engines
from trt_rt.archive.pickle_reader import PickledObject
from trt_rt.archive.torchscript_graph import GraphWriter
from trt_rt.archive.torchscript_objects import (
    StoredTensor,
    read_constants,
    read_examples,
    read_root,
)
from trt_rt.archive.torchscript_source import ScriptSource
from trt_rt.archive.torchscript_values import InputValues
from trt_rt.archive.torchscript_weights import StoredWeights
from trt_rt.backend import Backend, identify_plan
from trt_rt.compiled import Program
from trt_rt.compiled.call_writer import write_call
from trt_rt.compiled.calling_convention import CallingConvention
from trt_rt.errors import ArchiveError, BackendError, ExecutionError, InputError, PlanError
from trt_rt.module import TRTModule
from trt_rt.operator import OPERATOR, EngineMeta
from trt_rt.operator.describing import describe_tensors

__all__ = ["ScriptEngine", "load_torchscript", "read_engines"]

_DEEPEST = 100
_NAME = re.compile("[A-Za-z][A-Za-z0-9_]{0,200}|_[A-Za-z0-9][A-Za-z0-9_]{0,200}")


def load_torchscript(container: Container, device: Any, backend: str | Backend) -> Program:
    """Return the program of a TorchScript file.

    Parameters
    ----------
    container : Container
        The file.
    device : torch.device, str, int or None
        To run on. Default: a GPU for engines of TensorRT.
    backend : str or Backend
        For the engines.

    Raises
    ------
    ArchiveError
        The file is damaged, or its code does what files may not do.
    PlanError, BackendError
        A backend refuses a plan, or is missing.
    """
    return _Loader(container, device, backend).load()


def read_engines(container: Container) -> list[PickledEngine]:
    """Return the engines of a file, without loading them.

    Raises
    ------
    ArchiveError
        The file is not a TorchScript file of Torch-TensorRT.
    """
    where = f"{container.path}, record 'data.pkl'"
    engines = [
        engine_of_state(found.state, where)
        for found in _objects(read_root(container))
        if found.kind == ENGINE
    ]
    if not engines:
        raise ArchiveError(
            f"{container.path} is a TorchScript file without engines of Torch-TensorRT: load it with "
            "torch.jit.load."
        )
    return engines


def _objects(root: PickledObject) -> Iterator[PickledObject]:
    """A module, its submodules and their engines, each once."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        if type(found.state) is dict:
            waiting += [each for each in reversed(found.state.values()) if isinstance(each, PickledObject)]


class ScriptEngine:
    """An engine of a program, loaded.

    Attributes
    ----------
    name : str
        Of the program's submodule that runs it.
    module : TRTModule
        Runs it.
    meta : EngineMeta
        Its tensors. The SHA-256 is that of the plan.
    """

    def __init__(self, name: str, module: TRTModule, plan: bytes) -> None:
        self.name = name
        self.module = module
        engine = module.engine
        by_name = {tensor.name: tensor for tensor in (*engine.inputs, *engine.outputs)}
        inputs, outputs = describe_tensors(
            [by_name[each] for each in module.input_binding_names],
            [by_name[each] for each in module.output_binding_names],
            self._output_shapes,
        )
        backend = engine.backend
        self.meta = EngineMeta(
            backend if isinstance(backend, str) else backend.name,
            hashlib.sha256(plan).hexdigest(),
            inputs,
            outputs,
            module.aliased_io,
            engine.device.type,
        )

    def _output_shapes(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        engine = self.module.engine
        try:
            answer = engine.output_shapes(shapes)
        except (ExecutionError, InputError):
            return None
        order = {tensor.name: position for position, tensor in enumerate(engine.outputs)}
        return tuple(answer[order[name]] for name in self.module.output_binding_names)


class _Loader:
    """The steps from a checked container to a program."""

    def __init__(self, container: Container, device: Any, backend: str | Backend) -> None:
        self._container = container
        self._where = f"{container.path}, its code"
        self._backend = backend
        pickled = read_engines(container)
        self._device = choose_device(container.path, device, _saved_for(pickled))
        self._root = read_root(container)
        self._source = ScriptSource(container)
        self._values = InputValues(self._device)
        self._weights = StoredWeights(container, self._device)
        self._engines: dict[int, ScriptEngine] = {}
        self._examples: dict[Node, StoredTensor] = {}
        self._writer = GraphWriter(
            self._source,
            read_constants(container),
            self,
            self._values.mode,
            self._device,
            self._where,
        )

    def load(self) -> Program:
        forward = self._source.method(self._root.kind, "forward")
        parameters = forward.args.args[1:]
        for parameter in parameters:
            if not _NAME.fullmatch(parameter.arg) or keyword.iskeyword(parameter.arg):
                raise ArchiveError(f"{self._where}: {parameter.arg[:60]!r} is not allowed as a name.")
        arguments = tuple(self._argument(each.arg, each.annotation) for each in parameters)
        placeholders, in_spec = tree_flatten((arguments, {}))
        self._find_examples(placeholders)
        results, out_spec = tree_flatten(self._writer.write(self._root, arguments))
        if not all(
            isinstance(each, Node) or each is None or isinstance(each, (bool, int, float, str))
            for each in results
        ):
            raise ArchiveError(f"{self._where}: it returns something else than tensors and numbers.")
        for node in placeholders:
            if "val" not in node.meta and node in self._examples:
                self.value_of_input(node)
        graph = self._writer.graph
        graph.output(tuple(results))
        for node in reversed(list(graph.nodes)):
            if not node.users and (node.op == "get_attr" or node.target is operator.getitem):
                graph.erase_node(node)
        examples = [torch.empty(0) for _ in placeholders]
        names = [parameter.arg for parameter in parameters]
        signature = signature_of_names(names, len(names), self._where)
        convention = CallingConvention(in_spec, out_spec, signature, examples)
        for node in graph.nodes:
            try:
                check_constants(node)
            except (TypeError, ValueError) as error:
                raise ArchiveError(f"{self._where}: it cannot call {node.target} so: {error}.") from error
        call = write_call(convention, graph, self._values.ranges, GuardedFunctions())
        engines = list(self._engines.values())
        modules = {engine.name: engine.module for engine in engines}
        return Program(call, modules, self._weights.module, partition_of_engines(engines))

    def _argument(self, name: str, annotation: ast.expr | None) -> Any:
        """A placeholder for a parameter; for a tuple one for each item."""
        if isinstance(annotation, ast.Name) and annotation.id == "Tensor":
            return self._writer.graph.placeholder(name)
        if (
            isinstance(annotation, ast.Subscript)
            and isinstance(annotation.value, ast.Name)
            and annotation.value.id == "Tuple"
        ):
            inner = annotation.slice
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return tuple(self._argument(f"{name}_{number}", part) for number, part in enumerate(parts))
        raise ArchiveError(
            f"{self._where}: the parameter {name!r} is neither a tensor nor a tuple of tensors. Save the "
            "model as an exported program (.ep, .pt2)."
        )

    def _find_examples(self, placeholders: list[Node]) -> None:
        examples = list(_flattened(read_examples(self._container), len(placeholders)))
        if len(examples) == len(placeholders) and all(isinstance(each, StoredTensor) for each in examples):
            self._examples = dict(zip(placeholders, examples, strict=True))

    def value_of_input(self, node: Node) -> None:
        """Give an input of the program its value, when an operator of PyTorch is the first to use it."""
        example = self._examples.get(node)
        if example is None:
            raise ArchiveError(
                f"{self._where}: nothing tells the shape of the input {node.name!r}, which an operator of "
                "PyTorch takes. Save a module that torch.jit.trace made, or an exported program (.ep, .pt2)."
            )
        node.meta["val"] = self._values.of_example(example)

    def value_of_weight(self, path: str, stored: StoredTensor) -> torch.Tensor:
        """Read a weight, and return its value in the graph."""
        return self._values.of_weight(self._weights.read(path, stored))

    def call_engine(self, pickled: PickledObject, inputs: list[Node]) -> list[Node]:
        """Add the call of an engine."""
        engine = self._engine(pickled)
        meta, graph = engine.meta, self._writer.graph
        if len(inputs) != len(meta.inputs):
            raise ArchiveError(
                f"{self._where}: an engine of {len(meta.inputs)} inputs is called with {len(inputs)}."
            )
        for node, value in zip(inputs, self._values.of_engine(meta, engine.module), strict=True):
            node.meta.setdefault("val", value)
        plan = torch.empty(0, dtype=torch.uint8)
        values = self._writer.evaluate(
            OPERATOR, ([node.meta["val"] for node in inputs], self._values.of_weight(plan), meta.dumps()), {}
        )
        names = [tensor.name for tensor in meta.inputs]
        written = {
            position: inputs[names.index(meta.aliased_io[tensor.name])]
            for position, tensor in enumerate(meta.outputs)
            if tensor.name in meta.aliased_io
        }
        returned = [value for position, value in enumerate(values) if position not in written]
        # `Graph.call_module` would look for the submodule, which only the program will have.
        call = graph.create_node("call_module", engine.name, tuple(inputs))
        call.meta["val"] = tuple(returned) if len(returned) != 1 else returned[0]
        items = iter([call] if len(returned) == 1 else self._writer.items(call))
        return [written[position] if position in written else next(items) for position in range(len(values))]

    def _engine(self, pickled: PickledObject) -> ScriptEngine:
        found = self._engines.get(id(pickled))
        if found is None:
            name = f"engine_{len(self._engines)}"
            if pickled.kind != ENGINE:
                raise ArchiveError(f"{self._where}: it calls {pickled.kind[:80]!r} as an engine.")
            stored = engine_of_state(pickled.state, f"{self._container.path}, record 'data.pkl'")
            try:
                module = TRTModule(
                    stored.plan,
                    list(stored.inputs),
                    list(stored.outputs),
                    name=name,
                    backend=self._backend,
                    device=self._device,
                    aliased_io=stored.aliased_io,
                )
            except (PlanError, BackendError) as error:
                raise type(error)(
                    f"{self._container.path}, the engine {stored.name[:80]!r}: {error}"
                ) from error
            found = self._engines[id(pickled)] = ScriptEngine(name, module, stored.plan)
        return found


def _flattened(value: list[Any], most: int) -> Iterator[Any]:
    """The items of nested lists and tuples, up to one more than so many."""
    waiting: list[Any] = [iter(value)]
    found = 0
    while waiting and found <= most and len(waiting) <= _DEEPEST:
        item = next(waiting[-1], waiting)
        if item is waiting:
            waiting.pop()
        elif isinstance(item, (list, tuple)):
            waiting.append(iter(item))
        else:
            found += 1
            yield item


def _saved_for(engines: list[PickledEngine]) -> str:
    """The device of a file's engines: only the reference backend's run on a CPU."""
    is_portable = all(identify_plan(engine.plan).backends == ("reference",) for engine in engines)
    return "cpu" if is_portable else "cuda"
