"""Random arguments for a program, made from what its graph says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_unflatten

from trt_rt.compiled.generated_call import GeneratedCall
from trt_rt.errors import InputError

__all__ = ["example_arguments"]


def example_arguments(
    call: GeneratedCall, shapes: Mapping[str, tuple[int, ...]], batch: int | None
) -> tuple[dict[str, tuple[int, ...]], tuple[Any, ...], dict[str, Any]]:
    """Return arguments that a program takes: random tensors, the same at every call.

    Parameters
    ----------
    call : GeneratedCall
        The program's call.
    shapes : mapping
        Sizes of some tensor arguments, by the name in the graph. The others follow where they must.
    batch : int or None
        The first size of every tensor whose first size varies. None: that of the example, or the least.

    Returns
    -------
    tuple of dict, tuple and dict
        The shapes of all tensor arguments by name, positional arguments, and keyword arguments.

    Raises
    ------
    InputError
        A name is unknown, a shape has another number of sizes or another fixed size, or no first size varies.
    """
    placeholders = [node for node in call.graph.nodes if node.op == "placeholder"]
    tensors = {node.name: node for node in placeholders if isinstance(node.meta.get("val"), torch.Tensor)}
    sizes = _Sizes(call, tensors)
    if batch is not None:
        sizes.set_batch(batch)
    for name, shape in shapes.items():
        sizes.set_shape(name, shape)
    generator = torch.Generator().manual_seed(0)
    leaves = [
        _random(node.meta["val"], sizes.shape(node), generator) if node.name in tensors else example
        for node, example in zip(placeholders, call.convention.examples, strict=True)
    ]
    args, kwargs = tree_unflatten(leaves, call.convention.in_spec)
    return {name: sizes.shape(node) for name, node in tensors.items()}, tuple(args), dict(kwargs)


class _Sizes:
    """The values of the symbols in the sizes of a program's arguments."""

    def __init__(self, call: GeneratedCall, tensors: Mapping[str, Node]) -> None:
        self._tensors = tensors
        self._values: dict[Any, int] = {}
        for node in tensors.values():
            for size in node.meta["val"].shape:
                for symbol in _symbols(size):
                    self._values.setdefault(symbol, _usual(size, symbol, call))

    def shape(self, node: Node) -> tuple[int, ...]:
        return tuple(self._value(size) for size in node.meta["val"].shape)

    def _value(self, size: Any) -> int:
        return size if isinstance(size, int) else int(size.node.expr.subs(self._values))

    def set_batch(self, batch: int) -> None:
        symbols = {
            size.node.expr
            for node in self._tensors.values()
            for size in node.meta["val"].shape[:1]
            if _is_symbol(size)
        }
        if not symbols:
            raise InputError("no input of this program has a batch size that varies. Leave --batch out.")
        self._values.update(dict.fromkeys(symbols, batch))

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if name not in self._tensors:
            raise InputError(f"there is no input {name!r}; the program's inputs are {list(self._tensors)}.")
        node = self._tensors[name]
        sizes = node.meta["val"].shape
        if len(sizes) == len(shape):
            for size, wanted in zip(sizes, shape, strict=True):
                if _is_symbol(size):
                    self._values[size.node.expr] = wanted
        if self.shape(node) != shape:
            allowed = ", ".join(map(str, sizes))
            raise InputError(f"{shape} does not fit input {name!r}, whose sizes are ({allowed}).")


def _symbols(size: Any) -> set[Any]:
    return set() if isinstance(size, int) else set(size.node.expr.free_symbols)


def _is_symbol(size: Any) -> bool:
    return not isinstance(size, int) and bool(size.node.expr.is_Symbol)


def _usual(size: Any, symbol: Any, call: GeneratedCall) -> int:
    """Return the size of the example where it is known, and else the least that the program takes."""
    if _is_symbol(size) and size.node.hint is not None:
        return int(size.node.hint)
    bounds = call.ranges.get(symbol)
    return 1 if bounds is None else max(int(bounds.lower), 1)


def _random(value: torch.Tensor, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if value.dtype.is_floating_point or value.dtype.is_complex:
        made = torch.rand(shape, generator=generator)
    else:  # zeros and ones: valid indices of any table
        made = torch.randint(0, 2, shape, generator=generator)
    return made.to(value.device, value.dtype)
