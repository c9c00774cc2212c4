"""A compiled program as an exported program of PyTorch, in which engines are calls of an operator.

The graph is the one that the program's call was written from, so nothing is traced, and a program that is
made from it again calls the same operators.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    SymIntArgument,
    TensorArgument,
)
from torch.fx import Graph, Node

from trt_rt.compiled.calling_convention import CallingConvention
from trt_rt.compiled.engine_description import describe_engine, describe_plan
from trt_rt.compiled.generated_call import GeneratedCall
from trt_rt.module import TRTModule
from trt_rt.operator import OPERATOR, EngineMeta

__all__ = ["KeepPlan", "exported_program", "exported_without_plans"]

KeepPlan = Callable[[str, memoryview], torch.Tensor]
"""Takes the name and the bytes of a plan; returns the tensor that stands for it in an exported program."""


def exported_program(
    call: GeneratedCall,
    engines: Mapping[str, TRTModule],
    weights: torch.nn.Module,
    keep_plan: KeepPlan | None = None,
) -> ExportedProgram:
    """Return a program as an exported program.

    Parameters
    ----------
    call : GeneratedCall
        The program's call.
    engines : mapping
        By name of the submodule.
    weights : torch.nn.Module
        Has the weights under the paths that the call names. They are shared.
    keep_plan : callable, optional
        As for `Program.exported`.

    Raises
    ------
    BackendError
        A backend cannot serialize its engine.
    """
    loaded = {name: _LoadedEngine(module) for name, module in engines.items()}
    return _Exporter(call, loaded, weights, keep_plan or _copied).export()


def exported_without_plans(call: GeneratedCall, backend: str, weights: torch.nn.Module) -> ExportedProgram:
    """Return a program as an exported program for someone who keeps the plans elsewhere.

    Its engines need not be loaded. Their plans are tensors without elements.

    Parameters
    ----------
    call : GeneratedCall
        The program's call.
    backend : str
        That runs the plans.
    weights : torch.nn.Module
        Has the weights under the paths that the call names. They are shared.
    """
    absent = dict.fromkeys(call.engines.values(), _AbsentEngine(backend))
    return _Exporter(call, absent, weights, lambda name, plan: torch.empty(0, dtype=torch.uint8)).export()


class _EngineOfGraph(Protocol):
    """What a graph says of an engine."""

    def serialized(self) -> memoryview: ...

    def describe(
        self, sha256: str, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> EngineMeta: ...


class _LoadedEngine:
    def __init__(self, module: TRTModule) -> None:
        self._module = module

    def serialized(self) -> memoryview:
        return self._module.engine.serialized()

    def describe(
        self, sha256: str, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> EngineMeta:
        return describe_engine(self._module, sha256, inputs, outputs)


class _AbsentEngine:
    def __init__(self, backend: str) -> None:
        self._backend = backend

    def serialized(self) -> memoryview:
        return memoryview(b"")

    def describe(
        self, sha256: str, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> EngineMeta:
        return describe_plan(self._backend, sha256, inputs, outputs)


def _copied(name: str, plan: memoryview) -> torch.Tensor:
    return torch.frombuffer(bytearray(plan), dtype=torch.uint8)


class _Exporter:
    def __init__(
        self,
        call: GeneratedCall,
        engines: Mapping[str, _EngineOfGraph],
        weights: torch.nn.Module,
        keep_plan: KeepPlan,
    ) -> None:
        self._convention = call.convention
        self._source = call.graph
        self._ranges = call.ranges
        self._engines = engines
        self._weights = weights
        self._keep_plan = keep_plan
        self._hashes: dict[str, str] = {}
        self._graph = Graph()
        self._copies: dict[Node, Node] = {}
        self._known: dict[str, Node] = {}
        self._plans: dict[str, Node] = {}
        self._branches = torch.nn.Module()
        self._inputs: list[InputSpec] = []
        self._state: dict[str, Any] = {}
        self._constants: dict[str, Any] = {}

    def export(self) -> ExportedProgram:
        # PyTorch's own module for exported programs; it takes long to import.
        from torch._export.verifier import TrainingIRVerifier
        from torch.export.exported_program import ModuleCallEntry

        for node in self._source.nodes:
            if node.op == "get_attr" and node.users:  # the others are in engines
                self._add_weight(node)
        for name, engine in self._engines.items():
            self._add_plan(name, engine)
        placeholders = [node for node in self._source.nodes if node.op == "placeholder"]
        for node, example in zip(placeholders, self._convention.examples, strict=True):
            self._add_input(node, example)
        for node in self._source.nodes:
            if node.op == "call_module":
                self._add_engine_call(node)
            elif node.op == "call_function" and node not in self._copies:
                self._copies[node] = self._graph.node_copy(node, self._copies.__getitem__)
                _add_value(self._copies[node])
        outputs = self._add_outputs()
        return ExportedProgram(
            root=self._branches,
            graph=self._graph,
            graph_signature=ExportGraphSignature(self._inputs, outputs),
            state_dict=self._state,
            range_constraints=dict(self._ranges),
            module_call_graph=[ModuleCallEntry(fqn="", signature=_nesting(self._convention))],
            constants=self._constants,
            verifiers=[TrainingIRVerifier],
        )

    def _placeholder(self, name: str, value: Any) -> Node:
        node = self._graph.placeholder("".join(letter if letter.isalnum() else "_" for letter in name))
        node.meta["val"] = value
        return node

    def _add_weight(self, node: Node) -> None:
        path = str(node.target)
        if path in self._known:  # each use of a weight may have a node of its own
            self._copies[node] = self._known[path]
            return
        owner_name, _, attribute = path.rpartition(".")
        owner = self._weights.get_submodule(owner_name)
        value = getattr(owner, attribute)
        if not isinstance(value, torch.Tensor):  # a branch of torch.cond
            self._branches.add_module(path, value)
            self._copies[node] = self._graph.node_copy(node)
            return
        is_parameter = isinstance(value, torch.nn.Parameter)
        is_buffer = attribute in owner._buffers
        is_kept = is_parameter or (is_buffer and attribute not in owner._non_persistent_buffers_set)
        kind = InputKind.PARAMETER if is_parameter else InputKind.CONSTANT_TENSOR
        if is_buffer:
            kind = InputKind.BUFFER
        placeholder = self._placeholder(f"{'p' if is_parameter else 'b'}_{path}", node.meta["val"])
        self._copies[node] = self._known[path] = placeholder
        (self._state if is_kept else self._constants)[path] = value
        persistent = is_kept if is_buffer else None
        self._inputs.append(InputSpec(kind, TensorArgument(placeholder.name), path, persistent))

    def _add_plan(self, name: str, engine: _EngineOfGraph) -> None:
        path = f"{name}.plan"
        plan = engine.serialized()
        with _fake_mode(self._source):
            value = torch.empty(len(plan), dtype=torch.uint8)
        self._plans[name] = node = self._placeholder(f"b_{path}", value)
        self._hashes[name] = hashlib.sha256(plan).hexdigest()
        self._state[path] = self._keep_plan(path, plan)
        self._inputs.append(InputSpec(InputKind.BUFFER, TensorArgument(node.name), path, True))

    def _add_input(self, node: Node, example: Any) -> None:
        copied = self._graph.node_copy(node)
        # A graph adds a number to names that are Python's own, such as "input". Callers use the parameter's.
        if str(copied.target) not in {each.name for each in self._graph.nodes}:
            copied.name = str(copied.target)
        self._copies[node] = copied
        value = node.meta.get("val", example)
        argument: Any = TensorArgument(copied.name)
        if isinstance(value, torch.SymInt):
            argument = SymIntArgument(copied.name)
        elif not isinstance(value, torch.Tensor):
            copied.meta["val"] = example
            argument = ConstantArgument(copied.name, example)
        self._inputs.append(InputSpec(InputKind.USER_INPUT, argument, None))

    def _add_engine_call(self, node: Node) -> None:
        name = str(node.target)
        engine = self._engines[name]
        values = node.meta["val"]
        results = list(values) if isinstance(values, tuple) else [values]
        meta = engine.describe(
            self._hashes[name],
            [source.meta["val"] for source in node.args],  # type: ignore[union-attr]  # nodes only
            results,
        )
        inputs = [self._copies[source] for source in node.args]  # type: ignore[index]  # nodes only
        call = self._graph.call_function(OPERATOR, (inputs, self._plans[name], meta.dumps()))
        by_name = {tensor.name: number for number, tensor in enumerate(meta.inputs)}
        returned = iter(results)
        call.meta["val"] = [
            node.args[by_name[meta.aliased_io[tensor.name]]].meta["val"]  # type: ignore[union-attr]
            if tensor.name in meta.aliased_io
            else next(returned)
            for tensor in meta.outputs
        ]
        items = []
        for number, tensor in enumerate(meta.outputs):
            item = self._graph.call_function(operator.getitem, (call, number))
            item.meta["val"] = call.meta["val"][number]
            if tensor.name in meta.aliased_io:  # the operator returns what a module writes into its input
                written = inputs[by_name[meta.aliased_io[tensor.name]]]
                copy = self._graph.call_function(torch.ops.aten.copy_.default, (written, item))
                copy.meta["val"] = written.meta["val"]
            else:
                items.append(item)
        if not isinstance(values, tuple):
            self._copies[node] = items[0]
            return
        for user in list(node.users):
            position = user.args[1]
            assert isinstance(position, int)
            self._copies[user] = items[position]

    def _add_outputs(self) -> list[OutputSpec]:
        results: Any = self._source.output_node().args[0]
        copied = tuple(self._copies[value] if isinstance(value, Node) else value for value in results)
        node = self._graph.output(copied)
        node.meta["val"] = tuple(value.meta["val"] if isinstance(value, Node) else value for value in copied)
        specs = []
        for value in copied:
            argument: Any
            if not isinstance(value, Node):
                argument = ConstantArgument("", value)
            elif isinstance(value.meta["val"], torch.SymInt):
                argument = SymIntArgument(value.name)
            else:
                argument = TensorArgument(value.name)
            specs.append(OutputSpec(OutputKind.USER_OUTPUT, argument, None))
        return specs


def _add_value(node: Node) -> None:
    """Compute the value of a number that the compiler has put into the graph without one."""
    if "val" not in node.meta and callable(node.target):
        schema = getattr(node.target, "_schema", None)
        if schema is None or schema.returns:
            args = torch.fx.map_arg(node.args, lambda argument: argument.meta["val"])
            node.meta["val"] = node.target(*args)


def _fake_mode(graph: Graph) -> Any:
    """The mode of a graph's values; one of its own for a graph without tensors."""
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, FakeTensor):
            return value.fake_mode
    return FakeTensorMode()


def _nesting(convention: CallingConvention) -> Any:
    from torch.export.exported_program import ModuleCallSignature

    args, kwargs = convention.in_spec.children()
    names: list[str] | None = None
    if convention.signature is not None:
        names = [
            parameter.name
            for parameter in convention.signature.parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ][: len(args.children())]
        names = [*names, *kwargs.context] if len(names) == len(args.children()) else None
    return ModuleCallSignature(
        inputs=[],
        outputs=[],
        in_spec=convention.in_spec,
        out_spec=convention.out_spec,
        forward_arg_names=names,
    )
