"""What a packaged program's inputs must be, in words that its C++ callers read."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from trt_rt._core.dtype_name import dtype_name
from trt_rt.compiled.size_bounds import LARGEST_SIZE, bounds

__all__ = ["close_gaps", "describe_input"]


def close_gaps(node: Node) -> None:
    """Let a program be compiled for an input without gaps, where the example had some, such as ``x[:, ::2]``.

    Parameters
    ----------
    node : torch.fx.Node
        The placeholder of the tensor. Its value without memory is replaced.
    """
    value: torch.Tensor = node.meta["val"]
    if _order(value) is None:
        node.meta["val"] = torch.empty_like(value, memory_format=torch.contiguous_format)


def describe_input(exported: ExportedProgram, node: Node) -> str:
    """Describe one tensor that a caller gives to a program.

    AOTInductor compiles no checks of inputs that are on by default, and code that reads memory as the
    example's was. ``trt_rt/program_input.h`` reads this line and does what is missing.

    Parameters
    ----------
    exported : torch.export.ExportedProgram
        The program.
    node : torch.fx.Node
        The placeholder of the tensor, which has no gaps (`close_gaps`).

    Returns
    -------
    str
        Name, dtype, device, sizes and order of dimensions. A size is ``8``, or ``1:32:s0``: the smallest,
        the largest, which is empty if there is none, and the symbol, which is empty for an expression. The
        order begins with the dimension of the largest stride.
    """
    value: torch.Tensor = node.meta["val"]
    sizes = [_size(exported, size) for size in value.shape]
    order = _order(value)
    assert order is not None, "close_gaps was called"
    fields = (
        str(node.target),
        dtype_name(value.dtype),
        value.device.type,
        _joined(sizes),
        _joined(map(str, order)),
    )
    return " ".join(fields)


def _size(exported: ExportedProgram, size: int | torch.SymInt) -> str:
    if isinstance(size, int) or size.node.expr.is_number:
        return str(int(size))
    smallest, largest = bounds(size, exported.range_constraints)
    symbol = size.node.expr if size.node.expr.is_Symbol else ""
    return f"{smallest}:{largest if largest <= LARGEST_SIZE else ''}:{symbol}"


def _order(value: torch.Tensor) -> list[int] | None:
    """Return the dimensions from the largest stride to the smallest; None if there are gaps or overlaps."""
    sizes, strides = [_hint(size) for size in value.shape], [_hint(stride) for stride in value.stride()]
    # Sizes of 1 and equal strides stay where they are, as in a contiguous tensor.
    order = sorted(range(value.dim()), key=lambda dimension: -strides[dimension])
    expected = 1
    for dimension in reversed(order):
        if sizes[dimension] != 1 and strides[dimension] != expected:
            return None
        expected *= max(sizes[dimension], 1)
    return order


def _hint(size: int | torch.SymInt) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _joined(parts: Iterable[str]) -> str:
    return ",".join(parts) or "-"
