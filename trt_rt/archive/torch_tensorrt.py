"""Programs that Torch-TensorRT saved, turned into programs that trt_rt loads.

In such a program an engine is an object, an input of the graph: one of Torch-TensorRT's C++ class, or one of
its Python classes. It becomes a plan, a buffer of bytes, and its calls become calls of
``trt_rt::execute_engine``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from torch._export.serde import schema
from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

from trt_rt.archive.container import Container
from trt_rt.archive.engine_pickle import PickledEngine, read_engine
from trt_rt.archive.payload import CONSTANTS
from trt_rt.archive.program_checks import EXECUTE_ENGINE
from trt_rt.backend import identify_plan
from trt_rt.errors import ArchiveError, PlanError
from trt_rt.operator import EngineMeta, TensorMeta

__all__ = ["CALL", "plan_meta", "take_engines"]

CALL = "torch.ops.tensorrt.execute_engine.default"
_UINT8 = schema.ScalarType.BYTE


def take_engines(
    program: schema.ExportedProgram, container: Container, constants: dict[str, schema.PayloadMeta]
) -> dict[str, PickledEngine]:
    """Replace Torch-TensorRT's engines in a program.

    Parameters
    ----------
    program : ExportedProgram
        As the file has it; changed in place.
    container : Container
        The file.
    constants : dict
        Descriptions of the program's constants; those of engines are taken out.

    Returns
    -------
    dict of str to PickledEngine
        By the names of the buffers that their plans have become. Empty without such engines.

    Raises
    ------
    ArchiveError
        An engine is not stored as one of Torch-TensorRT's runtimes stores it.
    """
    return _Conversion(program, container, constants).run()


def plan_meta(size: int) -> schema.TensorMeta:
    """Return the description of a plan of so many bytes as a tensor."""
    return schema.TensorMeta(
        dtype=_UINT8,
        sizes=[schema.SymInt.create(as_int=size)],
        requires_grad=False,
        device=schema.Device(type="cpu"),
        strides=[schema.SymInt.create(as_int=1)],
        storage_offset=schema.SymInt.create(as_int=0),
        layout=schema.Layout.Strided,
    )


class _Conversion:
    def __init__(
        self, program: schema.ExportedProgram, container: Container, constants: dict[str, schema.PayloadMeta]
    ) -> None:
        self._graph = program.graph_module.graph
        self._signature = program.graph_module.signature
        self._container = container
        self._constants = constants
        self._engines: dict[str, PickledEngine] = {}
        self._found: dict[str, PickledEngine] = {}

    def run(self) -> dict[str, PickledEngine]:
        specs = self._signature.input_specs
        called = {
            given.arg.value.name
            for node in self._graph.nodes
            if node.target == CALL
            for given in node.inputs
            if given.arg.type == "as_custom_obj"
        }
        for number, spec in enumerate(specs):
            # The class is not always told, and it is not needed: the record must be that of an engine.
            if spec.type == "custom_obj" and spec.value.arg.name in called:
                specs[number] = self._buffer(spec.value)
        for node in self._graph.nodes:
            if node.target == CALL:
                self._replace_call(node)
        return self._found

    def _buffer(self, spec: schema.InputToCustomObjSpec) -> schema.InputSpec:
        name, path = spec.arg.name, spec.custom_obj_name
        meta = self._constants.pop(path, None)
        where = f"{self._container.path}, the engine {path[:80]!r}"
        if meta is None:
            raise ArchiveError(f"{where} is missing among the constants.")
        engine = read_engine(self._container.view(f"{CONSTANTS.folder}{meta.path_name}"), where)
        self._engines[name] = engine
        self._found[path] = engine
        self._graph.custom_obj_values.pop(name, None)
        self._graph.tensor_values[name] = plan_meta(len(engine.plan))
        self._graph.inputs = [
            _tensor(name) if given.type == "as_custom_obj" and given.value.name == name else given
            for given in self._graph.inputs
        ]
        argument = schema.TensorArgument(name=name)
        result: schema.InputSpec = schema.InputSpec.create(
            buffer=schema.InputToBufferSpec(arg=argument, buffer_name=path, persistent=False)
        )
        return result

    def _replace_call(self, node: schema.Node) -> None:
        arguments = {given.name: given.arg for given in node.inputs}
        tensors, engine = arguments.get("input_tensors"), arguments.get("engine")
        results = node.outputs[0] if len(node.outputs) == 1 else None
        if (
            tensors is None
            or engine is None
            or results is None
            or (tensors.type, engine.type, results.type) != ("as_tensors", "as_custom_obj", "as_tensors")
            or engine.value.name not in self._engines
        ):
            raise ArchiveError(
                f"{self._container.path}: a call of an engine of Torch-TensorRT has other arguments than "
                "tensors "
                "and an engine."
            )
        name = engine.value.name
        meta = self._describe(self._engines[name], tensors.value, results.value)
        node.target = EXECUTE_ENGINE
        values = {
            "inputs": tensors,
            "plan": _tensor(name),
            "meta": schema.Argument.create(as_string=meta.dumps()),
        }
        node.inputs = [
            schema.NamedArgument(name=key, arg=value, kind=schema.ArgumentKind.POSITIONAL)
            for key, value in values.items()
        ]

    def _describe(
        self,
        engine: PickledEngine,
        inputs: list[schema.TensorArgument],
        outputs: list[schema.TensorArgument],
    ) -> EngineMeta:
        names: dict[str, str] = {}
        try:
            kind = identify_plan(engine.plan)
        except PlanError as error:
            raise ArchiveError(f"{self._container.path}, the engine {engine.name[:80]!r}: {error}") from error
        return EngineMeta(
            kind.backends[0] if kind.backends else "tensorrt",
            hashlib.sha256(engine.plan).hexdigest(),
            tuple(self._described(engine.inputs, inputs, names, "")),
            tuple(self._described(engine.outputs, outputs, names, "?")),
            engine.aliased_io,
        )

    def _described(
        self,
        names: tuple[str, ...],
        tensors: list[schema.TensorArgument],
        sizes: dict[str, str],
        unknown: str,
    ) -> Iterator[TensorMeta]:
        if len(names) != len(tensors):
            raise ArchiveError(
                f"{self._container.path}: an engine has the tensors {names}, and is called with "
                f"{len(tensors)}."
            )
        for name, tensor in zip(names, tensors, strict=True):
            value = self._graph.tensor_values.get(tensor.name)
            if value is None or value.dtype not in _SERIALIZE_TO_TORCH_DTYPE:
                raise ArchiveError(
                    f"{self._container.path}: nothing is known of the tensor {tensor.name[:80]!r}."
                )
            shape: list[Any] = []
            for size in value.sizes:
                if size.type == "as_int":
                    shape.append(size.value)
                else:  # the same expression is the same size; others of outputs are known after the run
                    text = str(size.value.expr_str)
                    shape.append(sizes.setdefault(text, f"{unknown}s{len(sizes)}"))
            yield TensorMeta(name, _SERIALIZE_TO_TORCH_DTYPE[value.dtype], tuple(shape))


def _tensor(name: str) -> schema.Argument:
    argument: schema.Argument = schema.Argument.create(as_tensor=schema.TensorArgument(name=name))
    return argument
