"""Bounds on the numbers that a plan, or a value computed by it, passes to an operator.

The kernels of PyTorch multiply and add sizes, kernel widths and paddings in fixed-width integers. Within
these bounds nothing overflows there. Memory is bounded elsewhere, by the sizes of the results.
"""

from __future__ import annotations

import math

__all__ = ["LARGEST_SCALE", "LONGEST_LIST", "LONGEST_TEXT", "check_float", "check_integer"]

LONGEST_LIST = 4096
"""Elements of a list argument."""

LONGEST_TEXT = 1024
"""Characters of a string argument."""

LARGEST_SCALE = 2.0**15
"""The largest factor by which an image is scaled."""

_INT64 = 2**63 - 1
_DIMENSION = 2**31 - 1
_WINDOW = 2**15
_DECIMALS = 64
_LAYERS = 1024

_LIMITS = {
    # Values and positions: PyTorch compares them with a size, or stores them.
    **dict.fromkeys(("start", "end", "step", "min", "max", "low", "high", "fill_value"), _INT64),
    # Widths of windows and their steps: kernels multiply two of them.
    **dict.fromkeys(
        (
            "kernel_size",
            "stride",
            "padding",
            "output_padding",
            "dilation",
            "groups",
            "group",
            "num_groups",
            "upscale_factor",
            "downscale_factor",
            "hop_length",
            "win_length",
            "embed_dim",
            "num_head",
            "num_heads",
        ),
        _WINDOW,
    ),
    "decimals": _DECIMALS,
    "num_layers": _LAYERS,
}

_SCALES = ("scale_factors", "scales", "scales_h", "scales_w", "scales_d")


def check_integer(name: str, value: int) -> None:
    """Check an integer that is passed as the argument `name` of an operator.

    Raises
    ------
    ValueError
        It is out of range.
    """
    limit = _LIMITS.get(name, _DIMENSION)
    if not -limit - 1 <= value <= limit:
        raise ValueError(f"argument {name!r} is {value}, and must be between {-limit - 1} and {limit}")


def check_float(name: str, value: float) -> None:
    """Check a floating-point number that is passed as the argument `name` of an operator.

    Raises
    ------
    ValueError
        It is out of range.
    """
    if name in _SCALES and not (math.isfinite(value) and abs(value) <= LARGEST_SCALE):
        raise ValueError(f"argument {name!r} is {value}, and must be between 0 and {LARGEST_SCALE}")
