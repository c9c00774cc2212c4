"""An engine of one kind and one factory, as tests of behaviour use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import trt_rt
from tests.factories.selection import Factory
from trt_rt.backend import load

__all__ = ["Case"]


class Case:
    """What a factory made of a kind.

    Parameters
    ----------
    factory : Factory
        Where it comes from.
    kind : str
        As in `tests.factories`.
    made : dict
        What the factory returned.
    """

    def __init__(self, factory: Factory, kind: str, made: dict[str, Any]) -> None:
        self.factory = factory
        self.kind = kind
        self.plan: bytes = made["plan"]
        self.inputs: list[str] = made["inputs"]
        self.outputs: list[str] = made["outputs"]
        self.backend_argument: str | trt_rt.Backend = made["backend"]
        self.device: torch.device = made["device"]
        self.weights: dict[str, torch.Tensor] | None = made.get("weights")
        self._example = made["example"]
        self._expected = made["expected"]

    @property
    def backend(self) -> trt_rt.Backend:
        """The backend that runs it."""
        named = self.backend_argument
        return named if isinstance(named, trt_rt.Backend) else load(named)

    @property
    def alignment(self) -> int:
        """Bytes to which the addresses of device tensors must be aligned."""
        return 256 if self.device.type == "cuda" else 64

    def engine(self, backend: trt_rt.Backend | None = None, plan: bytes | None = None) -> trt_rt.Engine:
        """A newly loaded engine; of `plan`, and by `backend`, where given."""
        return trt_rt.Engine.from_bytes(
            self.plan if plan is None else plan,
            backend=backend or self.backend_argument,
            device=self.device,
            name=self.kind,
        )

    def module(self, backend: trt_rt.Backend | None = None, **options: Any) -> trt_rt.TRTModule:
        """A module over a newly loaded engine."""
        options.setdefault("aliased_outputs", "return")  # so that they are compared too
        return trt_rt.TRTModule(self.engine(backend), **options)

    def example(self, n: int) -> tuple[torch.Tensor, ...]:
        """Inputs of batch `n`, with new random values."""
        inputs: tuple[torch.Tensor, ...] = self._example(n)
        return inputs

    def expected(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the engine must return, computed from copies of `inputs`, in memory of its own."""
        outputs = self._expected(*(tensor.detach().clone() for tensor in inputs))
        return tuple(output.to(self.device, copy=True) for output in outputs)

    def assert_right(self, result: Any, expected: Sequence[torch.Tensor]) -> None:
        """Check what a call returned: type, number, shapes, dtypes, device and values of the outputs."""
        if len(expected) == 1:
            assert type(result) is torch.Tensor, f"one output is returned as a tensor, not as {type(result)}"
            result = (result,)
        assert isinstance(result, tuple)
        assert len(result) == len(expected)
        for output, wanted in zip(result, expected, strict=True):
            assert (output.dtype, output.shape, output.device) == (wanted.dtype, wanted.shape, wanted.device)
            if wanted.dtype.itemsize == 1 and wanted.is_floating_point():
                output, wanted = output.float(), wanted.float()  # fp8 has no comparison
            torch.testing.assert_close(output, wanted)
