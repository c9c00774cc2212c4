"""Calls of modules that PyTorch traces: the operator takes the engine's place in the graph."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch

from trt_rt._core.dynamo import constant_in_dynamo, hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt.engine import Engine
from trt_rt.errors import InputValueError
from trt_rt.module.in_graphs import EngineInGraphs, beside_fake_tensors, let_operator_call
from trt_rt.operator import OPERATOR

__all__ = ["CallsInGraphs"]


class _Module(Protocol):
    """The part of `TRTModule` that these methods use."""

    aliased_outputs: Literal["omit", "return"]
    _in_graphs: Any
    _inputs: tuple[IOTensor, ...]
    _outputs: list[IOTensor]

    @property
    def engine(self) -> Engine: ...

    @property
    def in_graphs(self) -> EngineInGraphs: ...

    def _form_in_graphs(self, is_saved: bool) -> tuple[str, tuple[str, ...], tuple[int | None, ...]]: ...


class CallsInGraphs:
    """How a `TRTModule` is recorded by PyTorch's tracers."""

    _in_graphs: Any = None  # an EngineInGraphs, once the module was traced

    @property
    def in_graphs(self: _Module) -> EngineInGraphs:
        """The engine as graphs hold it that PyTorch traces: its plan and its description."""
        engine = self.engine
        if self._in_graphs is None:
            found = EngineInGraphs(engine, self._inputs, self._outputs)
            assert isinstance(self, torch.nn.Module)
            let_operator_call(found.identity, self)
            self._in_graphs = found
        form: EngineInGraphs = self._in_graphs
        return form

    def _put_into_graph(
        self: _Module, inputs: tuple[Any, ...], named_inputs: dict[str, Any], out: Any
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Call the operator instead of the engine, for a tracer to record.

        The engine must not write into an input there, so the results for outputs that lie in an input's
        memory are copied to it.
        """
        if out is not None:
            raise InputValueError(
                "out= is not possible where PyTorch traces a graph: assign the result, or copy it."
            )
        is_saved = torch.compiler.is_exporting() or not torch.compiler.is_dynamo_compiling()
        meta, input_names, sources = self._form_in_graphs(is_saved)
        if named_inputs:
            inputs = (*inputs, *(named_inputs[name] for name in input_names[len(inputs) :]))
        plan = self._in_graphs.plan
        if not torch.compiler.is_dynamo_compiling():
            plan = beside_fake_tensors(plan, inputs)
        results = OPERATOR(list(inputs), plan, meta)
        returned: list[Any] = []
        for position, source in enumerate(sources):
            if source is None:
                returned.append(results[position])
            else:
                inputs[source].copy_(results[position])
                if self.aliased_outputs == "return":
                    returned.append(inputs[source])
        return returned[0] if len(returned) == 1 else tuple(returned)

    @constant_in_dynamo
    def _form_in_graphs(self: _Module, is_saved: bool) -> tuple[str, tuple[str, ...], tuple[int | None, ...]]:
        """Return the operator's `meta`, its input names, and for each result the input to copy it to."""
        form = self.in_graphs
        form.update()
        return form.meta(is_saved=is_saved), form.input_names, form.sources


hide_from_dynamo(globals())
