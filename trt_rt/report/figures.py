"""The drawings of a report, as SVG that takes the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from trt_rt.report.result import Case, Result

__all__ = ["Drawing", "drawings"]

_INK = "#010203"
"""Stands for the page's text colour: no palette has it."""
_PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#999999", "#b8a800")
"""Okabe and Ito's colours: people with any colour vision can tell them apart, on white and on black."""
_DASHES = ("-", "--", ":", "-.")
_WIDTH = 6.0
_STYLE: Any = {
    "axes.edgecolor": _INK,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 10,
    "grid.alpha": 0.25,
    "grid.color": _INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "trt_rt",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_MOST_LAYERS = 20
_MOST_STEPS = 30


@dataclass(frozen=True)
class Drawing:
    """One figure of the page.

    Attributes
    ----------
    identifier : str
        Its place in the page.
    title, caption : str
        A heading, and a sentence that says how to read it.
    svg : str
        The drawing.
    """

    identifier: str
    title: str
    caption: str
    svg: str

    def __post_init__(self) -> None:
        # Matplotlib's identifiers are unique within one drawing, and the page has several.
        svg = re.sub(r'(?<=[ "(:])(id="|url\(#|href="#)', rf"\g<1>{self.identifier}-", self.svg)
        object.__setattr__(self, "svg", svg)


def drawings(result: Result) -> list[Drawing]:
    """Return every drawing for which the result has numbers."""
    with matplotlib.rc_context(_STYLE):
        return [drawing for make in _MAKERS for drawing in make(result)]


def _modes(result: Result) -> list[Drawing]:
    made = []
    for index, (shapes, cases) in enumerate(_by_shapes(result).items()):
        figure = Figure(figsize=(_WIDTH, 0.9 + 0.36 * len(cases)), layout="constrained")
        axes = figure.subplots()
        names = [case.mode for case in cases]
        on_gpu = any(case.done.median != case.host.median for case in cases)
        _bars(axes, names, cases, lambda case: case.host, 0.2 if on_gpu else 0.0, 0, "until the call returns")
        if on_gpu:
            _bars(axes, names, cases, lambda case: case.done, -0.2, 1, "until the GPU is done")
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("µs, median and its 95 % interval")
        axes.grid(visible=False, axis="y")
        made.append(
            Drawing(
                f"modes-{index}",
                f"Modes, {shapes}",
                "Shorter is faster. A run does not tell bars apart whose intervals overlap.",
                _svg(figure),
            )
        )
    return made


def _bars(
    axes: Any,
    names: Sequence[str],
    cases: Sequence[Case],
    times: Callable[[Case], Any],
    shift: float,
    color: int,
    label: str,
) -> None:
    found = [times(case) for case in cases]
    medians = [time.median for time in found]
    # The interval is that of the rounds' median, which the median of all calls can leave by its rounding.
    errors = [
        [max(0.0, time.median - time.low) for time in found],
        [max(0.0, time.high - time.median) for time in found],
    ]
    axes.barh(
        [index - shift for index in range(len(names))],
        medians,
        height=0.36 if shift else 0.6,
        color=_PALETTE[color],
        xerr=errors,
        error_kw={"ecolor": _INK, "capsize": 2, "elinewidth": 1},
        label=label,
    )


def _distributions(result: Result) -> list[Drawing]:
    made = []
    for index, (shapes, cases) in enumerate(_by_shapes(result).items()):
        figure = Figure(figsize=(_WIDTH, 4.0), layout="constrained")
        axes = figure.subplots()
        for position, case in enumerate(cases):
            percentiles, microseconds = case.host.curve
            axes.plot(
                [1 / (1 - percentile / 100) if percentile < 100 else 1e4 for percentile in percentiles],
                microseconds,
                label=case.mode,
                color=_PALETTE[position % len(_PALETTE)],
                linestyle=_DASHES[position // len(_PALETTE) % len(_DASHES)],
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(FixedLocator([1, 2, 10, 100, 1000, 10000]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 - 100 / value:g} %"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("share of calls")
        axes.set_ylabel("µs until the call returns")
        figure.legend(loc="outside lower center", ncols=3)
        made.append(
            Drawing(
                f"distribution-{index}",
                f"Distribution, {shapes}",
                "So many calls returned within so many microseconds. A flat line that rises only at its "
                "right end is a steady call with a few slow ones.",
                _svg(figure),
            )
        )
    return made


def _throughput(result: Result) -> list[Drawing]:
    if not result.concurrency:
        return []
    figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    rates = [level.calls_per_second for level in result.concurrency]
    for position, (name, latencies) in enumerate(
        (
            ("median", [level.done.median for level in result.concurrency]),
            ("99 %", [level.done.p99 for level in result.concurrency]),
        )
    ):
        axes.plot(latencies, rates, marker="o", color=_PALETTE[position], label=name)
    for level, rate in zip(result.concurrency, rates, strict=True):
        axes.annotate(
            f"{level.threads}", (level.done.median, rate), textcoords="offset points", xytext=(4, 6)
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("µs until a call's work is done")
    axes.set_ylabel("calls a second")
    axes.set_ylim(bottom=0)
    axes.legend(title="of single calls")
    caption = (
        "Each point is a number of threads, each on a stream of its own. They call one module with "
        "pre-allocated results, and wait for each call. Up is more work done, left is a shorter wait."
    )
    return [Drawing("throughput", f"Throughput, {result.concurrency[0].shapes}", caption, _svg(figure))]


def _layers(result: Result) -> list[Drawing]:
    if not result.layers:
        return []
    slowest = sorted(result.layers, key=lambda layer: layer.microseconds, reverse=True)
    shown, rest = slowest[:_MOST_LAYERS], slowest[_MOST_LAYERS:]
    several = len({layer.engine for layer in result.layers}) > 1
    names = [_shortened(f"{layer.engine}: {layer.name}" if several else layer.name) for layer in shown]
    times = [layer.microseconds for layer in shown]
    if rest:
        names.append(f"{len(rest)} more layers")
        times.append(sum(layer.microseconds for layer in rest))
    figure = Figure(figsize=(_WIDTH, 0.8 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), times, color=_PALETTE[2])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("µs, mean")
    caption = (
        "The time of each layer as the backend's profiler gives it; profiled calls are slower than others."
    )
    return [Drawing("layers", "Layers", caption, _svg(figure))]


def _memory(result: Result) -> list[Drawing]:
    if result.memory is None:
        return []
    figure = Figure(figsize=(_WIDTH, 1.7), layout="constrained")
    axes = figure.subplots()
    left = 0.0
    for position, (name, size) in enumerate(
        (
            ("engines", result.memory.engines),
            ("workspace", result.memory.workspace),
            ("inputs", result.memory.inputs),
            ("outputs", result.memory.outputs),
        )
    ):
        mebibytes = size / 2**20
        axes.barh(0, mebibytes, left=left, color=_PALETTE[position], label=f"{name}: {mebibytes:.3g} MiB")
        left += mebibytes
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("MiB")
    figure.legend(loc="outside upper center", ncols=2)
    caption = (
        "One execution context of each engine, and the tensors of one call. Engines are counted by the size "
        "of their plans. Graphs, and what PyTorch's allocator keeps, are not counted."
    )
    return [Drawing("memory", "Memory", caption, _svg(figure))]


def _partition(result: Result) -> list[Drawing]:
    if not result.partition:
        return []
    shown = result.partition[:_MOST_STEPS]
    figure = Figure(figsize=(_WIDTH, 0.5 + 0.5 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(-len(shown) + 0.4, 0.6)
    for row, step in enumerate(shown):
        in_pytorch = step.name == "PyTorch"
        detail = step.why if in_pytorch else ""
        axes.text(
            0.02,
            -row,
            _shortened(f"{step.name}: {step.what}" + (f" ({detail})" if detail else ""), 70),
            va="center",
            bbox={
                "boxstyle": "round,pad=0.4",
                "facecolor": "none",
                "edgecolor": _PALETTE[4 if in_pytorch else 0],
                "linestyle": "--" if in_pytorch else "-",
                "linewidth": 1.5,
            },
        )
        if row:
            axes.annotate(
                "",
                xy=(0.05, -row + 0.3),
                xytext=(0.05, -row + 0.7),
                arrowprops={"arrowstyle": "->", "color": _INK},
            )
    caption = (
        "The steps of the program in their order. Solid boxes are engines, dashed ones PyTorch's operators."
    )
    if len(result.partition) > len(shown):
        caption += f" {len(result.partition) - len(shown)} more steps follow."
    return [Drawing("partition", "Program", caption, _svg(figure))]


_MAKERS: tuple[Callable[[Result], list[Drawing]], ...] = (
    _modes,
    _distributions,
    _throughput,
    _layers,
    _memory,
    _partition,
)


def _by_shapes(result: Result) -> dict[str, list[Case]]:
    grouped: dict[str, list[Case]] = {}
    for case in result.cases:
        grouped.setdefault(case.shapes, []).append(case)
    return grouped


def _shortened(text: str, most: int = 40) -> str:
    # A dollar sign would begin a formula.
    text = text.replace("$", r"\$")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _svg(figure: Figure) -> str:
    """Return the drawing without XML's head, with the page's text colour, scaled to the page's width."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'^<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", text, count=1, flags=re.DOTALL)
