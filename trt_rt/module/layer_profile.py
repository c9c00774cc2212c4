"""Times of layers: what TensorRT's profiler is told, added up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch

from trt_rt._core.callbacks import callback

__all__ = ["LayerProfile", "LayerTime", "new_profiler"]


@dataclass(frozen=True)
class LayerTime:
    """The time of one layer.

    Attributes
    ----------
    engine : str
        The name of the layer's `TRTModule`.
    layer : str
        The name of the layer.
    runs : int
        The number of runs.
    total_ms : float
        The time of all runs together, in milliseconds.
    """

    engine: str
    layer: str
    runs: int
    total_ms: float

    @property
    def ms(self) -> float:
        """The average time of one run, in milliseconds."""
        return self.total_ms / self.runs


class LayerProfile:
    """The times of a module's layers, readable also after the context. Calling it calls the module."""

    def __init__(self, module: torch.nn.Module, profilers: Sequence[Any]) -> None:
        self._module = module
        self._profilers = tuple(profilers)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return self._module(*args, **kwargs)

    @property
    def layers(self) -> list[LayerTime]:
        """The layers that have run, engine by engine, in the order of their first run."""
        return [time for profiler in self._profilers for time in profiler.times()]

    @property
    def total_ms(self) -> float:
        """The time of all layers and runs, in milliseconds."""
        return sum(time.total_ms for time in self.layers)

    def reset(self) -> None:
        """Forget all times, for example those of warm-up runs."""
        for profiler in self._profilers:
            profiler.reset()

    def table(self) -> str:
        """Return the times as text, one line for each layer, with each engine's slowest layer first.

        Returns
        -------
        str
            Columns: engine, layer, runs, milliseconds of a run, share of its engine's time.
        """
        rows = [("engine", "layer", "runs", "ms", "share")]
        for profiler in self._profilers:
            times = sorted(profiler.times(), key=lambda time: time.total_ms, reverse=True)
            whole = sum(time.total_ms for time in times)
            rows += [
                (t.engine, t.layer, str(t.runs), f"{t.ms:.4f}", f"{t.total_ms / whole if whole else 0:.1%}")
                for t in times
            ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join(names + numbers)


def new_profiler(
    api: ModuleType, name: str, report: Callable[[str, float], object] = lambda layer, ms: None
) -> Any:
    """Return a profiler that adds up the times of one module's layers.

    Parameters
    ----------
    api : module
        TensorRT's Python API, of the module's backend.
    name : str
        The module's.
    report : callable, optional
        ``report(layer, ms)`` is called for every layer of every run, on the thread that runs the engine.

    Returns
    -------
    IProfiler
        Also with ``times()`` and ``reset()``.
    """
    return _profiler_class(api)(name, report)


@cache
def _profiler_class(api: ModuleType) -> type:
    """The profiler for one backend: a subclass of ``api.IProfiler``."""
    base: Any = api.IProfiler

    class Profiler(base):  # type: ignore[misc]
        """Adds up the times of one module's layers; contexts on several streams may tell it at once."""

        def __init__(self, engine: str, report: Callable[[str, float], object]) -> None:
            base.__init__(self)
            self._engine = engine
            self._report = report
            self.reset()

        def reset(self) -> None:
            """Forget all times."""
            # By thread too: each thread changes its own items only.
            self._totals: dict[tuple[int, str], tuple[int, float]] = {}

        @callback()
        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """TensorRT's word on one run of a layer."""
            totals, key = self._totals, (threading.get_ident(), layer_name)
            runs, total = totals.get(key, (0, 0.0))
            totals[key] = (runs + 1, total + ms)
            self._report(layer_name, ms)

        def times(self) -> list[LayerTime]:
            """Of all layers so far."""
            layers: dict[str, tuple[int, float]] = {}
            for (_, layer), (runs, ms) in self._totals.copy().items():
                all_runs, total = layers.get(layer, (0, 0.0))
                layers[layer] = (all_runs + runs, total + ms)
            return [LayerTime(self._engine, layer, *total) for layer, total in layers.items()]

    return Profiler
