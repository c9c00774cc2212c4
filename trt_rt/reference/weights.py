"""The weights of a loaded engine, which stay on its device or are streamed to it in every run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from trt_rt.errors import PlanError
from trt_rt.reference.plain_execution import plain
from trt_rt.reference.plan import Plan
from trt_rt.reference.plan_weights import Weight

__all__ = ["WeightStore"]


class WeightStore:
    """Weights by their number in the plan.

    Parameters
    ----------
    plan : Plan
        Describes the weights.
    content : memoryview
        Their bytes, aligned to 64 bytes; weights on the CPU are views of them.
    device : torch.device
        The device that runs the engine.
    on_device : iterable of int
        Numbers of the weights that layers need on the device. Every weight is in host memory too.

    Raises
    ------
    PlanError
        The bytes of a weight are not values of its type.
    """

    def __init__(
        self,
        plan: Plan,
        content: memoryview,
        device: torch.device,
        on_device: Iterable[int],
    ) -> None:
        self._host = [_view(content, weight) for weight in plan.weights]
        self._device = device
        self._on_device = frozenset(on_device)
        self._resident: dict[int, torch.Tensor] = {}
        self.streamable_size = (
            sum(plan.weights[index].nbytes for index in self._on_device) if plan.streamable_weights else 0
        )
        self._budget = self.streamable_size
        self._place()

    @property
    def budget(self) -> int:
        """Bytes of weights that may stay on the device; the others are copied there in every run."""
        return self._budget

    @budget.setter
    @plain
    def budget(self, size: int) -> None:
        self._budget = min(size, self.streamable_size)
        self._place()

    @property
    def is_streaming(self) -> bool:
        """Whether a run copies weights to the device."""
        return self._budget < self.streamable_size

    @property
    def streamed(self) -> frozenset[int]:
        """The weights that a run copies to the device."""
        return self._on_device.difference(self._resident)

    @property
    def scratch_size(self) -> int:
        """Bytes of the largest streamed weight. Only one is on the device at a time, or a few."""
        return max((self._host[index].nbytes for index in self.streamed), default=0)

    def host(self, index: int) -> torch.Tensor:
        """Return a weight in host memory."""
        return self._host[index]

    def device(self, index: int) -> torch.Tensor:
        """Return a weight on the device; one that is streamed is copied on the current stream."""
        if index in self._resident:
            return self._resident[index]
        return self._host[index].to(self._device, copy=True, non_blocking=True)

    @plain
    def refit(self, values: Mapping[int, torch.Tensor]) -> None:
        """Overwrite weights in place with values of the same shape and dtype."""
        for index, value in values.items():
            self._host[index].copy_(value)
        if self._device.type != "cpu":
            for index in self._resident.keys() & values.keys():
                self._resident[index].copy_(self._host[index])

    def _place(self) -> None:
        """Keep weights on the device, in their order, until the budget is used up."""
        left = self._budget if self.streamable_size else None
        resident: dict[int, torch.Tensor] = {}
        for index in sorted(self._on_device):
            weight = self._host[index]
            if left is not None:
                left -= weight.nbytes
                if left < 0:
                    break
            kept = self._resident.get(index)
            resident[index] = weight.to(self._device) if kept is None else kept
        self._resident = resident


def _view(content: memoryview, weight: Weight) -> torch.Tensor:
    if not weight.nbytes:
        return torch.empty(weight.shape, dtype=weight.dtype, device="cpu")
    raw = torch.frombuffer(content, dtype=torch.uint8, count=weight.nbytes, offset=weight.offset)
    if weight.dtype is torch.bool and int(raw.max()) > 1:
        raise PlanError("the plan has a boolean weight with a value other than 0 and 1")
    return raw.view(weight.dtype).view(weight.shape)
