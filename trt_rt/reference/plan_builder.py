"""Puts a plan together.

``build`` imports this file when it is called, because torch.export is slow to import.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch.export import ExportedProgram
from torch.fx import Node as FxNode

from trt_rt._core.dtype_name import dtype_name
from trt_rt.errors import CompileError, ExecutionError, PlanError
from trt_rt.reference.dimensions import Dimensions
from trt_rt.reference.dims import MAX_DIMS
from trt_rt.reference.dtypes import DTYPES_BY_NAME, TENSORRT_DTYPES
from trt_rt.reference.exporting import NamedWeight, export_network
from trt_rt.reference.graph_builder import build_graph
from trt_rt.reference.io_tensors import InputTensor, OutputTensor
from trt_rt.reference.loaded_engine import LoadedEngine, load
from trt_rt.reference.logger import Logger, Reporter
from trt_rt.reference.plan import DeviceKind, Plan, pack_plan
from trt_rt.reference.plan_container import aligned
from trt_rt.reference.plan_weights import Weight
from trt_rt.reference.profile_builder import Wanted, build_profiles
from trt_rt.reference.profiles import LARGEST_MEMORY, Profile
from trt_rt.reference.shape_inference import InferredShapes
from trt_rt.reference.symbolic_sizes import static_shape

__all__ = ["PlanBuilder"]


class PlanBuilder:
    """Exports a network and makes its plan. The parameters are those of ``build``."""

    def __init__(
        self,
        module: torch.nn.Module | ExportedProgram,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        dynamic_shapes: Any,
        *,
        input_names: Sequence[str] | None,
        output_names: Sequence[str] | None,
        shape_inputs: Sequence[str],
        aliases: Mapping[str, str],
        device: str | torch.device,
        refittable: bool,
    ) -> None:
        self._device = _device_kind(device)
        self._network = network = export_network(module, args, kwargs, dynamic_shapes)
        names = _names(input_names, [node.name for node in network.inputs], "input")
        self._dimensions = Dimensions(network, names)
        self._inputs = self._describe_inputs(names, shape_inputs)
        self._refittable = refittable
        self._weights, self._weight_bytes, numbers = _collect_weights(network.weights, refittable)
        self._graph = build_graph(network, numbers, len(self._weights))
        self._outputs = self._describe_outputs(output_names, aliases)

    def build(self, profiles: Sequence[Wanted] | None, *, streamable_weights: bool, name: str) -> bytes:
        """Return the plan.

        Raises
        ------
        CompileError
            A profile does not fit the inputs, or the network cannot be run as an engine.
        """
        plan = Plan(
            name=name,
            # Shapes are inferred on this machine, which may lack the device of the engine.
            device="cpu",
            streamable_weights=streamable_weights,
            refittable=self._refittable,
            torch_version=str(torch.__version__),
            default_dtype=torch.get_default_dtype(),
            inputs=self._inputs,
            outputs=self._outputs,
            relations=self._dimensions.relations(),
            profiles=build_profiles(profiles, self._inputs, self._network.examples, self._dimensions),
            weights=self._weights,
            graph=self._graph,
        )
        try:
            # Reading the plan back ensures that no plan is built that would be refused.
            loaded = load(memoryview(pack_plan(plan, self._weight_bytes)), Reporter(Logger()))
            shapes = self._example_shapes(loaded)
        except (PlanError, ExecutionError) as error:
            raise CompileError(f"the network cannot be run as an engine: {error}") from error
        finished = replace(
            plan,
            device=self._device,
            outputs=tuple(
                replace(tensor, data_dependent=-1 in shape)
                for tensor, shape in zip(plan.outputs, shapes.outputs, strict=True)
            ),
            profiles=tuple(
                replace(profile, scratch_bytes=_scratch_bytes(loaded, profile)) for profile in plan.profiles
            ),
        )
        return pack_plan(finished, self._weight_bytes)

    def _example_shapes(self, loaded: LoadedEngine) -> InferredShapes:
        examples = self._network.examples
        return loaded.infer(
            tuple(tuple(tensor.shape) for tensor in examples),
            {
                number: examples[number]
                for number, tensor in enumerate(self._inputs)
                if tensor.location == "host"
            },
        )

    def _describe_inputs(self, names: list[str], shape_inputs: Sequence[str]) -> tuple[InputTensor, ...]:
        unknown = sorted(set(shape_inputs).difference(names))
        if unknown:
            raise CompileError(f"shape_inputs names {unknown}, and the inputs are {names}")
        tensors = []
        for number, (name, example) in enumerate(zip(names, self._network.examples, strict=True)):
            _check_io(name, example)
            shape = self._dimensions.shape(number)
            on_host = name in shape_inputs
            if on_host and (
                example.dtype not in (torch.int32, torch.int64)
                or len(shape) > 1
                or -1 in shape
                or example.device.type != "cpu"
            ):
                raise CompileError(
                    f"{name!r} is {example.dtype}{list(shape)} on {example.device}: a shape tensor is int32 "
                    "or int64, has at most one dimension, of constant size, and is on the CPU"
                )
            tensors.append(InputTensor(name, example.dtype, shape, "host" if on_host else "device"))
        return tuple(tensors)

    def _describe_outputs(
        self, names: Sequence[str] | None, aliases: Mapping[str, str]
    ) -> tuple[OutputTensor, ...]:
        network = self._network
        inputs = [tensor.name for tensor in self._inputs]
        default = [
            f"output{number}" if number < network.returned else f"{inputs[network.mutated[number]]}_out"
            for number in range(len(network.outputs))
        ]
        found = _names(names, default, "output")
        if set(found).intersection(inputs):
            raise CompileError(f"inputs {inputs} and outputs {found} must all have different names")
        unknown = sorted(set(aliases).difference(found)) + sorted(set(aliases.values()).difference(inputs))
        if unknown:
            raise CompileError(f"aliases names {unknown}; the outputs are {found}, the inputs {inputs}")
        tensors = []
        for number, (name, node) in enumerate(zip(found, network.outputs, strict=True)):
            value = node.meta["val"]
            _check_io(name, value)
            alias = inputs[network.mutated[number]] if number in network.mutated else aliases.get(name)
            tensor = OutputTensor(
                name=name,
                dtype=value.dtype,
                shape=static_shape(value.shape),
                aliased_input=alias,
                data_dependent=False,
                known_dims=self._dimensions.known_dims(value),
            )
            if alias is not None:
                _check_alias(tensor, self._inputs[inputs.index(alias)])
            tensors.append(tensor)
        return tuple(tensors)


def _device_kind(device: str | torch.device) -> DeviceKind:
    found = torch.device(device)
    if found.type not in ("cpu", "cuda") or found.index is not None:
        raise CompileError(
            f"device must be 'cpu' or 'cuda', which is the current one at loading, not {device!r}"
        )
    return cast("DeviceKind", found.type)


def _names(given: Sequence[str] | None, default: list[str], what: str) -> list[str]:
    names = default if given is None else list(given)
    if len(names) != len(default) or len(set(names)) != len(names):
        raise CompileError(f"{what}_names must be {len(default)} different names, not {names}")
    return names


def _check_io(name: str, tensor: torch.Tensor) -> None:
    if tensor.dtype not in TENSORRT_DTYPES:
        known = ", ".join(dtype_name(dtype) for dtype in TENSORRT_DTYPES)
        raise CompileError(f"{name!r} is {tensor.dtype}, and an I/O tensor of TensorRT is one of {known}")
    if tensor.dim() > MAX_DIMS:
        raise CompileError(f"{name!r} has {tensor.dim()} dimensions, and TensorRT has at most {MAX_DIMS}")


def _check_alias(output: OutputTensor, source: InputTensor) -> None:
    if output.dtype != source.dtype or output.shape != source.shape or source.location == "host":
        raise CompileError(
            f"output {output.name!r} ({output.dtype}{list(output.shape)}) cannot lie in the memory of input "
            f"{source.name!r} ({source.dtype}{list(source.shape)} in {source.location} memory)"
        )


def _collect_weights(
    named: list[NamedWeight], refittable: bool
) -> tuple[tuple[Weight, ...], list[bytes], dict[FxNode, int]]:
    """Lay out the weights: each once, or once for each of its names where they can change."""
    weights: list[Weight] = []
    contents: list[bytes] = []
    numbers: dict[FxNode, int] = {}
    seen: dict[Any, int] = {}
    offset = 0
    for entry in named:
        node, value = entry.node, entry.value
        is_plain = type(value) is torch.Tensor and not value.is_meta
        if not is_plain or dtype_name(value.dtype) not in DTYPES_BY_NAME:
            kind = f"{type(value).__name__} of {value.dtype} on {value.device}"
            raise CompileError(f"weight {node.name!r} is {kind}: a plan cannot hold it")
        shared = value.numel() and not (refittable and entry.key)
        key = (value.data_ptr(), value.dtype, value.shape, value.stride()) if shared else node
        if key not in seen:
            seen[key] = len(weights)
            weight = Weight(value.dtype, tuple(value.shape), offset, entry.key)
            weights.append(weight)
            contents.append(_bytes_of(value))
            offset += aligned(weight.nbytes)
        numbers[node] = seen[key]
    return tuple(weights), contents, numbers


def _bytes_of(value: torch.Tensor) -> bytes:
    dense = value.resolve_conj().resolve_neg().cpu().contiguous()
    return ctypes.string_at(dense.data_ptr(), dense.nbytes) if dense.nbytes else b""


def _scratch_bytes(loaded: LoadedEngine, profile: Profile) -> int:
    """Return the memory for intermediate results at a profile's largest shapes.

    Where these are too large for PyTorch, as when nothing bounds them, the best shapes count.
    """
    for which in ("max", "opt"):
        try:
            return min(loaded.infer_profile(profile, which).scratch_bytes, LARGEST_MEMORY)
        except ExecutionError:
            continue
    return 0
