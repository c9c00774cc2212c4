"""Builds the engine of a part: what the reference backend and TensorRT's builders do differently."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from trt_rt.backend import Backend
from trt_rt.compiler import BuildOptions, Profile, build_plan
from trt_rt.compiler.onnx_export import convert_program
from trt_rt.errors import CompileError, PlanError
from trt_rt.program.onnx_support import converts_to_onnx, node_of_conversion_error, refused_by_parser
from trt_rt.program.part import ORIGIN, Part, RefusedError
from trt_rt.program.partitioning import PreparedPart
from trt_rt.program.size_ranges import SizeRanges
from trt_rt.program.support import BackendSupport

__all__ = ["OnnxPartBuilder", "PartBuilder", "ReferencePartBuilder", "part_builder"]


class PartBuilder:
    """Makes engines of parts with one backend.

    Parameters
    ----------
    backend : Backend
        That builds.
    ranges : SizeRanges
        Of the program.
    options : BuildOptions
        For every part.
    device : torch.device
        That the engines run on.
    """

    def __init__(
        self, backend: Backend, ranges: SizeRanges, options: BuildOptions, device: torch.device
    ) -> None:
        self.backend = backend
        self._ranges = ranges
        # The dtypes are in the graph: a module was cast before its export.
        self._options = replace(options, precision="strong", progress=False)
        self._device = device

    @property
    def supports(self) -> BackendSupport:
        """A function that says why the backend cannot run a node's operator; None if it can."""
        raise NotImplementedError

    def prepare(self, part: Part) -> PreparedPart:
        """Export a part and ask the backend about it.

        Raises
        ------
        RefusedError
            Operators must stay in PyTorch.
        """
        raise NotImplementedError

    def build(self, prepared: PreparedPart) -> bytes:
        """Return the part's plan.

        Raises
        ------
        CompileError
            The builder refuses it.
        """
        raise NotImplementedError


class ReferencePartBuilder(PartBuilder):
    """Builds plans of the reference backend, which runs the operators that its plans may name."""

    @property
    def supports(self) -> BackendSupport:
        """A function that says why a plan may not call a node's operator; None if it may."""
        from trt_rt.reference.operators import operator_name, resolve

        def reason(node: torch.fx.Node) -> str | None:
            name = operator_name(node.target)
            if name is None:
                return "the reference backend runs only PyTorch's own operators"
            try:
                resolve(name)
            except PlanError as error:
                return str(error)
            return None

        return reason

    def prepare(self, part: Part) -> PreparedPart:
        """Export a part: the reference backend's parser is its list of operators."""
        return PreparedPart(part, part.export(self._ranges), None)

    def build(self, prepared: PreparedPart) -> bytes:
        """Return the part's plan."""
        profiles = prepared.part.profiles(self._ranges)
        return build_plan(
            prepared.exported,
            profiles=profiles or None,
            backend=self.backend,
            input_names=_input_names(prepared),
            output_names=_output_names(prepared),
            device=self._device.type,
            options=self._options,
        ).plan


class OnnxPartBuilder(PartBuilder):
    """Builds plans through ONNX, with TensorRT's own parser and builder."""

    @property
    def supports(self) -> BackendSupport:
        """A function that says why torch.onnx cannot express a node; None if it can."""
        return converts_to_onnx

    def prepare(self, part: Part) -> PreparedPart:
        """Export a part, convert it to ONNX, and ask the parser about each node."""
        prepared = self._converted_untraced(part) or self._converted(part)
        refused = refused_by_parser(prepared.converted, self.backend)
        if refused:
            whole = refused.pop("", None)
            raise RefusedError(refused or dict.fromkeys(part.names, str(whole)))
        return prepared

    def _converted_untraced(self, part: Part) -> PreparedPart | None:
        """Convert a part without tracing it.

        None where that cannot be done; :meth:`_converted` then finds the reason, or another way.
        """
        exported = part.export_for_onnx(self._ranges)
        if exported is None:
            return None
        prepared = PreparedPart(part, exported, None)
        try:
            prepared.converted = convert_program(
                exported,
                input_names=_input_names(prepared),
                output_names=_output_names(prepared),
                decompose=False,
            )
        except CompileError:
            return None
        return prepared

    def _converted(self, part: Part) -> PreparedPart:
        exported = part.export(self._ranges)
        prepared = PreparedPart(part, exported, None)
        try:
            prepared.converted = convert_program(
                exported, input_names=_input_names(prepared), output_names=_output_names(prepared)
            )
        except CompileError as error:
            names = {
                node.name: (node.meta.get("custom") or {}).get(ORIGIN, "") for node in exported.graph.nodes
            }
            failed = node_of_conversion_error(error, names)
            reason = f"torch.onnx cannot express it: {error}"
            raise RefusedError(dict.fromkeys([failed] if failed else part.names, reason)) from error
        return prepared

    def build(self, prepared: PreparedPart) -> bytes:
        """Return the part's plan."""
        model: Any = prepared.converted.model_proto
        prepared.converted = None
        profiles: list[Profile] = prepared.part.profiles(self._ranges)
        return build_plan(model, profiles=profiles, backend=self.backend, options=self._options).plan


def part_builder(
    backend: Backend, ranges: SizeRanges, options: BuildOptions, device: torch.device
) -> PartBuilder:
    """Return what builds parts with a backend."""
    kind = ReferencePartBuilder if backend.name == "reference" else OnnxPartBuilder
    return kind(backend, ranges, options, device)


def _input_names(prepared: PreparedPart) -> list[str]:
    return [node.name for node in prepared.part.module.graph.nodes if node.op == "placeholder"]


def _output_names(prepared: PreparedPart) -> list[str]:
    """Names that tell where in the model an output is, and that differ from those of inputs."""
    return [f"{node.name}_out" for node in prepared.part.outputs]
