"""Bounds the numbers that a file's program computes, by the program alone.

Integers have no bound in Python: a chain of forty products would take all memory. Checking each result would
cost time in every call. So the bits that each number can have are added up when the program is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch._export.serde import schema

__all__ = ["LONGEST_NUMBER", "NumberBits"]

LONGEST_NUMBER = 4096
"""Bits of a number in a program."""

_OF_FLOAT = 1024
_OF_LOOP = 96
_SUMS = frozenset({"_operator.add", "_operator.sub"})
_GROW = "its numbers could grow without bound"
_FROM_FLOATS = frozenset({"math.trunc", "math.floor", "math.ceil", "torch.sym_int"})


class NumberBits:
    """The most bits that the numbers of a graph can have.

    Parameters
    ----------
    inputs : dict
        Of the numbers that the graph receives, by their names.
    """

    OF_SIZE = 64
    """Bits of a size, and of a number that a tensor holds."""

    def __init__(self, inputs: dict[str, int]) -> None:
        self._bits = dict(inputs)

    @classmethod
    def of_inputs(cls, inputs: Sequence[schema.Argument], most: int = OF_SIZE) -> NumberBits:
        """Start with numbers of `most` bits as inputs."""
        return cls({name: most for argument in inputs for name in _names(argument)})

    def most(self, arguments: Sequence[schema.Argument]) -> int:
        """Return the bits of the longest number among arguments."""
        return max((self._of(argument) for argument in arguments), default=0)

    def add_call(self, node: schema.Node) -> None:
        """Note the results of a function of numbers.

        Raises
        ------
        TypeError, ValueError
            An argument is no number, or the result could be too long.
        """
        arguments = [argument.arg for argument in node.inputs]
        if node.target == "_operator.getitem":
            self.add_results(node, max(self.most(arguments[:1]), NumberBits.OF_SIZE))
            return
        if node.target == "torch.sym_sum" and len(arguments) == 1 and arguments[0].type == "as_sym_ints":
            bits = [self._of(argument) for argument in arguments[0].value]
            self.add_results(node, max(bits, default=0) + len(bits).bit_length())
            return
        if any(isinstance(argument.value, (list, str)) for argument in arguments):
            raise TypeError("it takes numbers")
        if not all(argument.type.startswith("as_sym_") or _is_number(argument) for argument in arguments):
            raise TypeError("it takes numbers")
        longest = self.most(arguments)
        if node.target == "_operator.mul":
            longest = sum(map(self._of, arguments))
        elif node.target in _SUMS:
            longest += 1
        elif node.target in _FROM_FLOATS:
            longest = max(longest, _OF_FLOAT)
        self.add_results(node, longest)

    def add_results(self, node: schema.Node, bits: int = OF_SIZE) -> None:
        """Note the numbers among the results of any call.

        Raises
        ------
        ValueError
            They could be too long.
        """
        if bits > LONGEST_NUMBER:
            raise ValueError(_GROW)
        self._bits.update({name: bits for output in node.outputs for name in _names(output)})

    def check_loop(self, outputs: Sequence[schema.Argument]) -> None:
        """Check that a number which a loop passes on to its next turn hardly grows in one.

        Raises
        ------
        ValueError
            It could be multiplied by itself.
        """
        if self.most(outputs) > _OF_LOOP:
            raise ValueError(_GROW)

    def _of(self, argument: Any) -> int:
        kind = str(argument.type)  # PyTorch's own type of string refuses to be compared with other kinds
        if kind == "as_name":
            return self._known(argument.value)
        if kind.startswith("as_sym_"):
            value = argument.value
            return self.most(value) if isinstance(value, list) else self._of(value)
        return NumberBits.OF_SIZE if _is_number(argument) else 0

    def _known(self, name: str) -> int:
        if name not in self._bits:
            raise ValueError(f"{name[:60]!r} is not a number that was computed before")
        return self._bits[name]


def _is_number(argument: Any) -> bool:
    return str(argument.type) in ("as_int", "as_float", "as_bool")


def _names(argument: schema.Argument) -> list[str]:
    if not argument.type.startswith("as_sym_"):
        return []
    values = argument.value if isinstance(argument.value, list) else [argument.value]
    return [value.value for value in values if str(value.type) == "as_name"]
