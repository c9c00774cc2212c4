"""The engine of a module in graphs that PyTorch traces: its plan and its description."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import ReferenceType, ref

import torch

from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt.engine import Engine
from trt_rt.engine.output_shapes import OutputShape
from trt_rt.errors import BackendError, ExecutionError, InputError

__all__ = ["EngineInGraphs", "beside_fake_tensors", "let_operator_call", "module_of"]


_modules: dict[str, ReferenceType[torch.nn.Module]] = {}


def let_operator_call(identity: str, module: torch.nn.Module) -> None:
    """Let calls of the operator whose description has this identity call a module, as long as it lives."""
    _modules[identity] = ref(module, lambda _: _modules.pop(identity, None))


def module_of(identity: str | None) -> torch.nn.Module | None:
    """Return the module that the operator calls; None if it is gone, or of another process."""
    reference = _modules.get(identity or "")
    return None if reference is None else reference()


def beside_fake_tensors(plan: torch.Tensor, inputs: Sequence[Any]) -> torch.Tensor:
    """Return a plan as the operator takes it with these inputs: a fake tensor where it must be one."""
    for tensor in inputs:
        mode = getattr(tensor, "fake_mode", None)
        if isinstance(tensor, torch.Tensor) and mode is not None and not mode.allow_non_fake_inputs:
            fake: torch.Tensor = mode.from_tensor(plan)
            return fake
    return plan


class EngineInGraphs:
    """The arguments that stand for one module's engine in calls of the operator.

    Parameters
    ----------
    engine : Engine
        The module's.
    inputs, outputs : sequence of IOTensor
        All of the engine's, in the order of the module's arguments and results.

    Attributes
    ----------
    identity : str
        By which the operator finds the module in this process.
    input_names : tuple of str
        In the order of the operator's inputs.
    sources : tuple of (int or None)
        For each of the operator's results the position of the input in whose memory the engine writes it.
    plan : torch.Tensor
        The plan as it was at the last `update`; None before.
    """

    def __init__(self, engine: Engine, inputs: Sequence[IOTensor], outputs: Sequence[IOTensor]) -> None:
        self._engine = engine
        self.identity = uuid.uuid4().hex
        self.input_names = tuple(tensor.name for tensor in inputs)
        self.sources = tuple(
            None if output.aliased_input is None else self.input_names.index(output.aliased_input)
            for output in outputs
        )
        self.plan: Any = None  # Dynamo reads it: a function's constant result has one name for all modules
        self._sha256 = ""
        self._outputs = tuple(outputs)
        self._has_device_input = not all(tensor.is_shape_tensor for tensor in inputs)
        from trt_rt.operator.describing import describe_tensors  # `import trt_rt` need not wait for it

        self._tensors = describe_tensors(inputs, outputs, self._ask)

    def update(self) -> None:
        """Take the plan of the engine as it is now. `plan` stays the same tensor while the weights do.

        Raises
        ------
        ClosedError
            The engine was closed.
        BackendError
            Its backend cannot write it.
        """
        written = self._engine.serialize()
        sha256 = hashlib.sha256(written).hexdigest()
        if sha256 != self._sha256:
            with plain_pytorch():
                self.plan = torch.frombuffer(bytearray(written), dtype=torch.uint8)
            self._sha256 = sha256

    def meta(self, *, is_saved: bool) -> str:
        """Return the description of the engine as it was at the last `update`.

        Parameters
        ----------
        is_saved : bool
            Whether other processes may read the graph. If not, the operator calls the module.

        Raises
        ------
        BackendError
            Another process cannot find the engine's backend.
        """
        backend = self._engine.backend
        if not isinstance(backend, str):
            if is_saved:
                raise BackendError(
                    f"engine {self._engine.name!r} runs on the backend {backend.name!r}, which only this "
                    "process knows: a saved program names a backend of trt_rt.backends()."
                )
            backend = backend.name
        from trt_rt.operator import EngineMeta

        inputs, outputs = self._tensors
        aliased_io = {each.name: each.aliased_input for each in self._outputs if each.aliased_input}
        meta = EngineMeta(backend, self._sha256, inputs, outputs, aliased_io)
        if not self._has_device_input:
            meta = replace(meta, device=self._engine.device.type)
        return (meta if is_saved else replace(meta, module=self.identity)).dumps()

    def _ask(self, shapes: dict[str, tuple[int, ...]]) -> tuple[OutputShape, ...] | None:
        try:
            answer = self._engine.output_shapes(shapes)
        except (InputError, ExecutionError):
            return None
        order = {tensor.name: position for position, tensor in enumerate(self._engine.outputs)}
        return tuple(answer[order[output.name]] for output in self._outputs)


hide_from_dynamo(globals())
