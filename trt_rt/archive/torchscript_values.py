"""Tensors without memory that stand for the inputs of a TorchScript program while its graph is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from trt_rt.archive.torchscript_objects import StoredTensor
from trt_rt.module import TRTModule
from trt_rt.operator import EngineMeta

__all__ = ["InputValues"]

_LARGEST_SIZE = 2**31 - 1


class InputValues:
    """Makes the values of inputs, and of engines' results.

    Attributes
    ----------
    mode : FakeTensorMode
        In which operators are called to learn the shapes and dtypes of their results.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sizes = ShapeEnv()
        self.mode = FakeTensorMode(shape_env=self._sizes)

    @property
    def ranges(self) -> dict[Any, Any]:
        """Of each symbol the range of its sizes."""
        return dict(self._sizes.var_to_range)

    def of_example(self, example: StoredTensor) -> torch.Tensor:
        """Return an input like the one that a module was traced with. Sizes of 2 and more may vary."""
        sizes = [self._symbol(size, 0, _LARGEST_SIZE) if size > 1 else size for size in example.sizes]
        return self._empty(sizes, example.dtype, is_host=False)

    def of_engine(self, meta: EngineMeta, module: TRTModule) -> list[torch.Tensor]:
        """Return the inputs of an engine, with the sizes that its profiles allow."""
        symbols: dict[str, Any] = {}
        values = []
        tensors = {tensor.name: tensor for tensor in module.engine.inputs}
        for described in meta.inputs:
            profiles = tensors[described.name].profiles
            sizes = []
            for axis, size in enumerate(described.shape):
                if isinstance(size, str):
                    if size not in symbols:
                        low = min((each.min[axis] for each in profiles), default=0)
                        high = max((each.max[axis] for each in profiles), default=_LARGEST_SIZE)
                        usual = next((each.opt[axis] for each in profiles), 2)
                        symbols[size] = self._symbol(min(max(usual, low, 2), high), low, high)
                    sizes.append(symbols[size])
                else:
                    sizes.append(size)
            values.append(self._empty(sizes, described.dtype, is_host=described.is_host))
        return values

    def of_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight without its elements."""
        found: torch.Tensor = self.mode.from_tensor(weight, static_shapes=True)
        return found

    def _empty(self, sizes: Sequence[Any], dtype: torch.dtype, *, is_host: bool) -> torch.Tensor:
        with self.mode:
            device = torch.device("cpu") if is_host else self._device
            return torch.empty(tuple(sizes), dtype=dtype, device=device)

    def _symbol(self, hint: int, low: int, high: int) -> Any:
        source = ConstantSource(f"size_{len(self._sizes.var_to_range)}")
        symbol = self._sizes.create_symbol(
            hint, source, dynamic_dim=DimDynamic.DYNAMIC, do_not_specialize_zero_one=True
        )
        size = self._sizes.create_symintnode(symbol, hint=hint, source=source)
        self._sizes.constrain_symbol_range(symbol, low, high)
        return size
