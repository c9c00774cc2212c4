"""``EngineInspector``: an engine's layers, as text or JSON."""

from __future__ import annotations

import json
from typing import Any

from trt_rt.errors import ExecutionError
from trt_rt.reference.enums import LayerInformationFormat
from trt_rt.reference.execution_context import IExecutionContext
from trt_rt.reference.loaded_engine import LoadedEngine

__all__ = ["EngineInspector"]


class EngineInspector:
    """Describes the layers of an engine; :meth:`ICudaEngine.create_engine_inspector` makes it."""

    def __init__(self, loaded: LoadedEngine, *, engine: object) -> None:
        self._loaded = loaded
        # Keeps the ICudaEngine alive, as TensorRT requires.
        self._engine = engine
        self._context: IExecutionContext | None = None

    @property
    def execution_context(self) -> IExecutionContext | None:
        """The context whose shapes are described; None to leave shapes out."""
        return self._context

    @execution_context.setter
    def execution_context(self, context: IExecutionContext | None) -> None:
        self._context = context

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        """Describe all layers.

        Parameters
        ----------
        format : LayerInformationFormat
            JSON: an object with ``Layers`` and ``Bindings``. ONELINE: one line for each layer.
        """
        layers = [self._layer(index) for index in range(len(self._loaded.plan.graph.nodes))]
        if format is LayerInformationFormat.JSON:
            bindings = [*self._loaded.input_numbers, *self._loaded.output_numbers]
            return json.dumps({"Layers": layers, "Bindings": bindings})
        return "".join(f"{_one_line(layer)}\n" for layer in layers)

    def get_layer_information(self, layer_index: int, format: LayerInformationFormat) -> str:
        """Describe one layer; return an empty string, and log an error, if there is no such layer."""
        count = len(self._loaded.plan.graph.nodes)
        if not 0 <= layer_index < count:
            self._loaded.reporter.misuse(
                "IEngineInspector::getLayerInformation", f"layer {layer_index} is not in [0, {count})"
            )
            return ""
        layer = self._layer(layer_index)
        return json.dumps(layer) if format is LayerInformationFormat.JSON else _one_line(layer)

    def _layer(self, index: int) -> dict[str, Any]:
        loaded = self._loaded
        step = loaded.program.steps[index]
        return {
            "Name": step.node.name,
            "LayerType": step.node.operator.name,
            "Inputs": [{"Name": self._value_name(value)} for value in step.reads],
            "Outputs": [{"Name": step.node.name, "Dimensions": self._dimensions(index)}],
            "Location": "Host" if step.on_host else "Device",
        }

    def _value_name(self, index: int) -> str:
        program = self._loaded.program
        if index < program.first_weight:
            return self._loaded.plan.inputs[index].name
        if index < program.leaves:
            return f"weight {index - program.first_weight}"
        return program.steps[index - program.leaves].node.name

    def _dimensions(self, index: int) -> list[int] | None:
        if self._context is None:
            return None
        try:
            shape = self._context._inferred().layers[index]
        except ExecutionError:
            return None
        return None if shape is None else list(shape)


def _one_line(layer: dict[str, Any]) -> str:
    inputs = ", ".join(value["Name"] for value in layer["Inputs"])
    return f"{layer['Name']} = {layer['LayerType']}({inputs})"
