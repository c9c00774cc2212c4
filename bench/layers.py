"""Which row of the benches is the layer below which: a row calls the one below, and adds something to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LAYERS", "Overhead", "overheads"]

# By the row, the row below. Rows keep these names in every tool and every release.
LAYERS = {
    **{
        f"{above}_{size}": f"{below}_{size}"
        for size in ("1x1", "4x4")
        for above, below in (
            ("bind", "bare"),
            ("executor_prealloc", "bind"),
            ("module_prealloc", "executor_prealloc"),
            ("executor_fresh", "executor_prealloc"),
            ("module_fresh", "executor_fresh"),
            ("module_out", "module_prealloc"),
            ("graph_module_prealloc", "graph_bind"),
            ("graph_module_fresh", "graph_module_prealloc"),
        )
    },
    "compiled_engine": "module_fresh_1x1",
    "compiled_engine_relu_engine": "engine_relu_engine_by_hand",
    "executor_prealloc_new_input": "executor_prealloc_1x1",
    "module_prealloc_two_shapes": "module_prealloc_1x1",
    "module_fresh_two_shapes": "module_fresh_1x1",
}


@dataclass(frozen=True)
class Overhead:
    """What a row adds to the layer below.

    Attributes
    ----------
    row, below : str
        Names of rows.
    us, below_us : float
        Their times in microseconds.
    """

    row: str
    below: str
    us: float
    below_us: float

    @property
    def added_us(self) -> float:
        """The microseconds that the row adds."""
        return self.us - self.below_us


def overheads(times: Mapping[str, float]) -> list[Overhead]:
    """Return what each row adds to the layer below, for rows of which both were measured.

    Parameters
    ----------
    times : mapping of str to float
        Microseconds by the name of the row.
    """
    return [
        Overhead(row, below, times[row], times[below])
        for row, below in LAYERS.items()
        if row in times and below in times
    ]
