"""The sizes for which a program is made: limits, examples and optimization profiles, symbol by symbol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import sympy
import torch
from torch.fx import Graph, Node
from torch.utils._sympy.value_ranges import ValueRanges

from trt_rt.compiled.size_bounds import LARGEST_SIZE, bounds, expression
from trt_rt.compiler import Profile, ShapeRange
from trt_rt.errors import CompileError
from trt_rt.program.sizes import NOT_IN_ENGINES, size_sources, tensor_inputs

__all__ = ["SizeRanges"]

_SymbolRange = tuple[int, int, int]


class SizeRanges:
    """The known ranges of the symbols in a program's shapes.

    Parameters
    ----------
    graph : torch.fx.Graph
        The program's. The values of its placeholders have symbolic shapes.
    ranges : mapping
        Of symbol to the range for which the program is right.
    examples : sequence
        The leaves of the program's example arguments, tensors among them, one for each placeholder.
    opt_shapes : sequence
        For each leaf the shape for which engines are tuned; None for what is no tensor.
    profiles : sequence of Profile, optional
        The user's, by name of the input in the exported program. Default: one, of all sizes in `ranges`.

    Attributes
    ----------
    carriers : dict
        For each symbol that an engine can read from an input of the program: that input's placeholder.

    Raises
    ------
    CompileError
        A dimension has no largest size, or a profile does not fit the inputs.
    """

    def __init__(
        self,
        graph: Graph,
        ranges: Mapping[Any, Any],
        examples: Sequence[Any],
        opt_shapes: Sequence[tuple[int, ...] | None],
        profiles: Sequence[Profile] | None,
    ) -> None:
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        tensors = tensor_inputs(graph)
        self._ranges = dict(ranges)
        self._sources = size_sources(tensors)
        allowed = [node for node in tensors if node.meta["val"].dtype not in NOT_IN_ENGINES]
        self.carriers = {symbol: source.tensor for symbol, source in size_sources(allowed).items()}
        example_shapes = {
            node: tuple(example.shape)
            for node, example in zip(placeholders, examples, strict=True)
            if isinstance(example, torch.Tensor)
        }
        opt = {node: shape for node, shape in zip(placeholders, opt_shapes, strict=True) if shape is not None}
        self._examples = self._read(example_shapes)
        self._check_limits(tensors)
        self._check_examples(example_shapes)
        if profiles is None:
            self._profiles = [self._default_profile(self._read(opt))]
        else:
            self._profiles = [
                self._users_profile(profile, number, tensors) for number, profile in enumerate(profiles)
            ]

    @property
    def number_of_profiles(self) -> int:
        """How many optimization profiles each engine gets."""
        return len(self._profiles)

    def varies(self, size: Any) -> bool:
        """Whether a size is not always the same."""
        low, high = self.limits(size)
        return low != high

    def limits(self, size: Any) -> tuple[int, int]:
        """Return the smallest and the largest value of a size."""
        return bounds(size, self._ranges)

    def is_bounded(self, size: Any) -> bool:
        """Whether a size has a largest value that TensorRT can have."""
        return self.limits(size)[1] <= LARGEST_SIZE

    def example(self, size: Any) -> int:
        """Return a value of a size to export with: the example inputs', else one in its range."""
        return self._evaluate(size, self._examples)

    def shapes(self, shape: Sequence[Any], number: int) -> ShapeRange:
        """Return the smallest, the most usual and the largest of a symbolic shape in one profile."""
        profile = self._profiles[number]
        limits = {symbol: ValueRanges(low, high) for symbol, (low, _, high) in profile.items()}
        ends = [bounds(size, {**self._ranges, **limits}) for size in shape]
        usual = {symbol: sympy.Integer(middle) for symbol, (_, middle, _) in profile.items()}
        middles = [
            min(max(self._evaluate(size, usual), low), high)
            for size, (low, high) in zip(shape, ends, strict=True)
        ]
        return tuple(low for low, _ in ends), tuple(middles), tuple(high for _, high in ends)

    def described(self) -> list[str]:
        """Return the profiles as text that is the same in every process."""
        return [
            str(sorted((str(symbol), limits) for symbol, limits in profile.items()))
            for profile in self._profiles
        ]

    def _evaluate(self, size: Any, values: Mapping[Any, Any]) -> int:
        found = expression(size)
        if isinstance(found, int):
            return found
        unknown = {symbol: self._middle(symbol) for symbol in found.free_symbols if symbol not in values}
        return int(found.xreplace({**values, **unknown}))

    def _middle(self, symbol: Any) -> sympy.Integer:
        """A value of a size that is known at run time only."""
        found = self._ranges.get(symbol)
        low = max(int(found.lower), 0) if found is not None else 0
        high = int(found.upper) if found is not None and found.upper <= LARGEST_SIZE else LARGEST_SIZE
        # torch.export takes 0 and 1 for constants.
        return sympy.Integer(min(max(low, 2, min(high, 64) // 2), high))

    def _read(self, shapes: Mapping[Node, Sequence[int]]) -> dict[Any, sympy.Integer]:
        """The value of each symbol in concrete shapes of the inputs."""
        values = {}
        for symbol, source in self._sources.items():
            if source.tensor in shapes:
                size = shapes[source.tensor][source.axis]
                values[symbol] = sympy.Integer((size - source.offset) // source.scale)
        return values

    def _check_limits(self, tensors: Sequence[Node]) -> None:
        for node in tensors:
            for axis, size in enumerate(node.meta["val"].shape):
                if not self.is_bounded(size):
                    raise CompileError(
                        f"dimension {axis} of input {_name(node)!r} is dynamic and has no largest size: give "
                        "it one (torch.export.Dim(..., max=...) in dynamic_shapes, trt_rt.Input, or max= of "
                        "mark_dynamic)"
                    )

    def _check_examples(self, shapes: Mapping[Node, Sequence[int]]) -> None:
        """Refuse examples with sizes that the user's ranges exclude, some of which torch.export takes."""
        for node, shape in shapes.items():
            for axis, (size, example) in enumerate(zip(node.meta["val"].shape, shape, strict=True)):
                low, high = self.limits(size)
                if not low <= example <= high:
                    raise CompileError(
                        f"dimension {axis} of input {_name(node)!r} is {example} in the example, and may be "
                        f"{low} to {high}: give an example in that range, or widen the range"
                    )

    def _default_profile(self, usual: Mapping[Any, Any]) -> dict[Any, _SymbolRange]:
        profile = {}
        for symbol in self._sources:
            limits = self._ranges.get(symbol)
            if limits is not None:
                low, high = max(int(limits.lower), 0), int(min(limits.upper, LARGEST_SIZE))
                profile[symbol] = (low, min(max(int(usual.get(symbol, low)), low), high), high)
        return profile

    def _users_profile(
        self, profile: Profile, number: int, tensors: Sequence[Node]
    ) -> dict[Any, _SymbolRange]:
        nodes = {_name(node): node for node in tensors}
        for name, limits in profile.items():
            if name not in nodes:
                near = get_close_matches(name, nodes, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f": they are {sorted(nodes)}"
                raise CompileError(f"profile {number} names {name!r}, which is no input of the program{hint}")
            self._check_profile(number, nodes[name], limits)
        found: dict[Any, _SymbolRange] = {}
        for symbol, source in self._sources.items():
            if _name(source.tensor) not in profile:
                raise CompileError(
                    f"profile {number} has no range for input {_name(source.tensor)!r}, whose dimension "
                    f"{source.axis} is dynamic"
                )
            low, middle, high = (
                (int(shape[source.axis]) - source.offset) // source.scale
                for shape in profile[_name(source.tensor)]
            )
            found[symbol] = (low, middle, high)
        return found

    def _check_profile(self, number: int, node: Node, limits: ShapeRange) -> None:
        shape = node.meta["val"].shape
        if len(limits) != 3 or any(len(sizes) != len(shape) for sizes in limits):
            raise CompileError(
                f"profile {number}, input {_name(node)!r}: a range is a smallest, a most usual and a largest "
                f"shape, each with {len(shape)} dimensions, not {limits!r}"
            )
        for axis, (size, low, middle, high) in enumerate(zip(shape, *limits, strict=True)):
            smallest, largest = self.limits(size)
            if not low <= middle <= high:
                raise CompileError(
                    f"profile {number}, dimension {axis} of input {_name(node)!r} breaks min <= opt <= max: "
                    f"{low}, {middle}, {high}"
                )
            if not smallest <= low <= high <= largest:
                raise CompileError(
                    f"profile {number} allows dimension {axis} of input {_name(node)!r} from {low} to {high}"
                    f", and the exported model is right from {smallest} to {largest}: narrow the profile, or "
                    "widen dynamic_shapes"
                )


def _name(placeholder: Node) -> str:
    """The name of an input in the exported program: a node's own name is never that of a Python builtin."""
    return str(placeholder.target)
