"""Networks, and plans of them, each built once a process."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import Dim

from tests.built_once import built_once
from trt_rt import reference as trt


class Affine(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return eager_affine(x)


class SumAndIncrement(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, b + 1


class Copy(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(0)


class Nonzero(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.nonzero(x), x * 2


class Repeat(torch.nn.Module):
    """``y[i] = x[i % 4]``, as long as the shape tensor says."""

    def forward(self, x: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        return x[torch.arange(length[0].item(), device=x.device) % 4]


class Accumulate(torch.nn.Module):
    def forward(self, cache: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        cache.add_(x)
        return x * 2


class Constants(torch.nn.Module):
    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(4), torch.full((), 2.5)


class Checked(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        is_positive = (x.sum() > 0).to(torch.int64).item()
        torch._check(is_positive == 1, lambda: "the sum must be positive")
        return x + 1


class Convolutions(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).flatten(1)


BATCH = Dim("batch", min=1, max=32)


def eager_affine(x: torch.Tensor) -> torch.Tensor:
    """What an engine of `affine` returns."""
    return torch.relu(x) * 2 + 1


@built_once
def affine(dtype: torch.dtype = torch.float32, device: str = "cpu") -> bytes:
    return trt.build(
        Affine(), (torch.zeros(3, 7).to(dtype),), dynamic_shapes={"x": {0: BATCH}}, device=device
    )


@built_once
def copy(dtype: torch.dtype, device: str = "cpu") -> bytes:
    return trt.build(
        Copy(),
        (torch.zeros(3, 4, dtype=dtype),),
        dynamic_shapes={"x": {0: Dim("batch", min=0)}},
        device=device,
    )


@built_once
def two(device: str = "cpu") -> bytes:
    shapes = {"a": {0: BATCH}, "b": {0: BATCH}}
    return trt.build(
        SumAndIncrement(),
        (torch.zeros(3, 3), torch.zeros(3, 3)),
        dynamic_shapes=shapes,
        output_names=["sum", "increment"],
        device=device,
    )


@built_once
def nonzero(device: str = "cpu") -> bytes:
    return trt.build(
        Nonzero(), (torch.zeros(3, 5),), dynamic_shapes={"x": {0: Dim("b", min=0, max=32)}}, device=device
    )


@built_once
def shape_tensor(dtype: torch.dtype = torch.int64, device: str = "cpu") -> bytes:
    return trt.build(
        Repeat(),
        (torch.zeros(4), torch.tensor([4], dtype=dtype)),
        shape_inputs=["length"],
        profiles=[{"length": ([1], [4], [9])}, {"length": ([10], [12], [20])}],
        device=device,
    )


@built_once
def accumulate(device: str = "cpu") -> bytes:
    return trt.build(Accumulate(), (torch.zeros(8, 4), torch.zeros(8, 4)), device=device)


@built_once
def profiles(device: str = "cpu") -> bytes:
    ranges = [{"x": ([1, 7], [2, 7], [4, 7])}, {"x": ([5, 7], [8, 7], [32, 7])}]
    return trt.build(
        Affine(), (torch.zeros(3, 7),), dynamic_shapes={"x": {0: BATCH}}, profiles=ranges, device=device
    )


@built_once
def constants(device: str = "cpu") -> bytes:
    return trt.build(Constants(), (), device=device)


@built_once
def checked(device: str = "cpu") -> bytes:
    return trt.build(Checked(), (torch.ones(4),), device=device)


@built_once
def convolutions() -> Convolutions:
    torch.manual_seed(0)
    return Convolutions().eval()


@built_once
def streaming(device: str = "cpu") -> bytes:
    return trt.build(
        convolutions(),
        (torch.zeros(2, 1, 8, 8),),
        dynamic_shapes={"x": {0: BATCH}},
        streamable_weights=True,
        name="streaming",
        device=device,
    )


def scalar(module: Any, example: torch.Tensor) -> bytes:
    return trt.build(module, (example,))
