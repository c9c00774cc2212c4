"""Describes an engine: finds its outputs' sizes as expressions by asking it for shapes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt.operator.expressions import parse_size
from trt_rt.operator.meta import TensorMeta

__all__ = ["Ask", "describe_tensors"]

Ask = Callable[[dict[str, tuple[int, ...]]], tuple[tuple[int | None, ...], ...] | None]
"""From the shapes of inputs to those of outputs, with None for sizes that depend on data; None if refused."""

_LARGEST_DIVISOR = 64


@dataclass(frozen=True)
class _Symbol:
    """A size that varies: its name, and the sizes that profiles allow."""

    name: str
    low: int
    usual: int
    high: int

    @property
    def samples(self) -> list[int]:
        """Sizes to ask about: the ends, and some in a row, which tell a rounded quotient."""
        around = [self.low + step for step in (0, 1, 2, 3, 5, 8)]
        around += [(self.low + self.high) // 2, self.high - 1, self.high]
        return sorted({size for size in around if self.low <= size <= self.high} - {self.usual})


@dataclass(frozen=True)
class _Answer:
    """The sizes of symbols that were asked about, and the sizes of all outputs' dimensions."""

    sizes: Mapping[str, int]
    outputs: tuple[tuple[int | None, ...], ...]


def describe_tensors(
    inputs: Sequence[IOTensor], outputs: Sequence[IOTensor], ask: Ask
) -> tuple[tuple[TensorMeta, ...], tuple[TensorMeta, ...]]:
    """Return the descriptions of an engine's inputs and outputs.

    A size of an output for which no expression is found is one that is known after the run only.

    Parameters
    ----------
    inputs, outputs : sequence of IOTensor
        All of the engine's.
    ask : callable
        Tells the engine's output shapes. It is not called if nothing varies, or if there are shape tensors,
        whose values sizes may depend on.
    """
    symbols: list[_Symbol] = []
    shapes: dict[str, tuple[int | str, ...]] = {}
    for tensor in inputs:
        shapes[tensor.name] = tuple(
            size if size != -1 else _add_symbol(symbols, tensor, axis)
            for axis, size in enumerate(tensor.shape)
        )
    answers: list[_Answer] = []
    can_ask = not any(tensor.is_shape_tensor for tensor in inputs) and all(symbol.high for symbol in symbols)
    if can_ask and any(tensor.is_dynamic for tensor in outputs):
        tied, answers = _Questions(symbols, shapes, ask).answers()
        shapes = {
            name: tuple(tied.get(size, size) if isinstance(size, str) else size for size in shape)
            for name, shape in shapes.items()
        }
    unknown = (f"?u{number}" for number in itertools.count())
    return (
        tuple(
            TensorMeta(tensor.name, tensor.dtype, shapes[tensor.name], tensor.is_shape_tensor)
            for tensor in inputs
        ),
        tuple(
            TensorMeta(
                tensor.name,
                tensor.dtype,
                tuple(
                    size if size != -1 else _expression(answers, position, axis) or next(unknown)
                    for axis, size in enumerate(tensor.shape)
                ),
                tensor.is_shape_tensor,
            )
            for position, tensor in enumerate(outputs)
        ),
    )


def _add_symbol(symbols: list[_Symbol], tensor: IOTensor, axis: int) -> str:
    ranges = [] if tensor.is_shape_tensor else tensor.profiles
    symbols.append(
        _Symbol(
            f"s{len(symbols)}",
            min((each.min[axis] for each in ranges), default=0),
            next((each.opt[axis] for each in ranges), 0),
            max((each.max[axis] for each in ranges), default=0),
        )
    )
    return symbols[-1].name


class _Questions:
    """Asks an engine for shapes, with one symbol varying at a time and with all of them."""

    def __init__(
        self, symbols: Sequence[_Symbol], shapes: Mapping[str, tuple[int | str, ...]], ask: Ask
    ) -> None:
        self._symbols = symbols
        self._shapes = shapes
        self._ask = ask
        self._answers: list[_Answer] = []

    def answers(self) -> tuple[dict[str, str], list[_Answer]]:
        """Return which symbols stand for others, as the engine accepts them equal only, and the answers."""
        usual = {symbol.name: symbol.usual for symbol in self._symbols}
        if not self._accepts(usual):
            return {}, []
        tied: dict[str, str] = {}
        varying: dict[str, _Symbol] = {}
        for symbol in self._symbols:
            if not symbol.samples or self._accepts({**usual, symbol.name: symbol.samples[-1]}):
                varying[symbol.name] = symbol
        groups: dict[str, list[str]] = {name: [name] for name in varying}
        for symbol in self._symbols:
            if symbol.name in groups or symbol.name in tied:
                continue
            same = [
                other.name
                for other in self._symbols
                if other.name not in varying
                and (other.low, other.usual, other.high) == (symbol.low, symbol.usual, symbol.high)
            ]
            if self._accepts({**usual, **dict.fromkeys(same, symbol.samples[-1])}):
                groups[symbol.name] = same
                varying[symbol.name] = symbol
                tied.update(dict.fromkeys(same, symbol.name))
            else:
                return {}, []  # nothing is known of how its sizes go together
        for name, symbol in varying.items():
            for size in symbol.samples[:-1]:
                self._accepts({**usual, **dict.fromkeys(groups[name], size)})
        for step in (0, -1, 1, 2):
            together = {}
            for number, (name, symbol) in enumerate(varying.items()):
                sizes = symbol.samples or [symbol.usual]
                at = step if step < 1 else (number + 1) * step % len(sizes)
                together.update(dict.fromkeys(groups[name], sizes[at]))
            self._accepts({**usual, **together})
        return tied, self._answers

    def _accepts(self, sizes: Mapping[str, int]) -> bool:
        outputs = self._ask(
            {
                name: tuple(sizes[size] if isinstance(size, str) else size for size in shape)
                for name, shape in self._shapes.items()
            }
        )
        if outputs is not None:
            self._answers.append(_Answer(sizes, outputs))
        return outputs is not None


def _expression(answers: Sequence[_Answer], position: int, axis: int) -> int | str | None:
    """Return the first expression that agrees with every answer, the simplest ones first."""
    found = [(answer.sizes, answer.outputs[position][axis]) for answer in answers]
    points = [(sizes, size) for sizes, size in found if size is not None]
    if not points or len(points) != len(found):
        return None
    names = list(points[0][0])
    if all(size == points[0][1] for _, size in points):
        return points[0][1]
    for text in itertools.chain(_linear(points, names), _products(points, names), _quotients(points, names)):
        size_of = parse_size(text, names)
        if all(size_of(sizes) == size for sizes, size in points):
            return text
    return None


_Points = Sequence[tuple[Mapping[str, int], int]]


def _linear(points: _Points, names: Sequence[str]) -> Iterator[str]:
    """Sums of symbols with factors. The first point is the usual one, from which each symbol varies alone."""
    usual, size = points[0]
    factors: dict[str, int] = {}
    for sizes, other in points[1:]:
        different = [name for name in names if sizes[name] != usual[name]]
        first = different[0] if different else None
        if first is None or any(sizes[name] != sizes[first] for name in different) or first in factors:
            continue
        step = sizes[first] - usual[first]
        if (other - size) % step:
            return
        if len(different) == 1 or not any(name in factors for name in different):
            factors[first] = (other - size) // step
    rest = size - sum(factor * usual[name] for name, factor in factors.items())
    terms = [name if factor == 1 else f"{factor}*{name}" for name, factor in factors.items() if factor]
    if terms:
        yield " + ".join([*terms, *([str(rest)] if rest else [])])


def _products(points: _Points, names: Sequence[str]) -> Iterator[str]:
    """Products of two or three symbols and a number, and the larger of two symbols."""
    usual, size = points[0]
    for count in (2, 3):
        for chosen in itertools.combinations(names, count):
            product = math.prod(usual[name] for name in chosen)
            if product and size % product == 0 and size:
                factor = [] if size == product else [str(size // product)]
                yield "*".join([*factor, *chosen])
    for first, second in itertools.combinations(names, 2):
        yield f"max({first}, {second})"


def _quotients(points: _Points, names: Sequence[str]) -> Iterator[str]:
    """Rounded quotients of a symbol, as strided convolutions and pooling give them."""
    usual, size = points[0]
    for name in names:
        for divisor in range(2, _LARGEST_DIVISOR + 1):
            for rest in range(divisor * size - usual[name], divisor * (size + 1) - usual[name]):
                yield f"({name} + {rest})//{divisor}" if rest else f"{name}//{divisor}"


hide_from_dynamo(globals())
