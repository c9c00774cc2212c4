"""Compare the runs of `make bench`: python bench/history.py [--last N] [--html FILE] [FOLDER].

`make bench` keeps each run as JSON in .benchmarks/. This prints what each layer adds to the one below in the
last run and in those before it, and draws the same as a page.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import jinja2
import matplotlib as mpl
from layers import LAYERS, overheads
from matplotlib.figure import Figure

from trt_rt.backend.atomic_file import write_atomically

_STORE = Path(__file__).resolve().parents[1] / ".benchmarks"
_PAGE = Path(__file__).with_name("history.html")


@dataclass(frozen=True)
class Run:
    """One run of `make bench`.

    Attributes
    ----------
    label : str
        The version of trt_rt and the commit, with a star if files had been changed since.
    machine : str
        The processor and the Python.
    date : str
        In UTC.
    times : dict
        Microseconds by the name of the row.
    """

    label: str
    machine: str
    date: str
    times: dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=_STORE, help="has the JSON of runs")
    parser.add_argument("--last", type=int, default=8, help="how many runs (default: 8)")
    parser.add_argument("--html", type=Path, help="write a page to look at")
    options = parser.parse_args()
    runs = read_runs(options.folder)
    if not runs:
        print(
            f"bench/history.py: there are no runs in {options.folder}; make bench writes them",
            file=sys.stderr,
        )
        return 1
    # Times of different machines say nothing about a change.
    runs = [run for run in runs if run.machine == runs[-1].machine][-max(options.last, 1) :]
    rows = table(runs)
    for row in [("row", "over", *(run.label for run in runs)), *rows]:
        print("  ".join([row[0].ljust(32), row[1].ljust(28), *(cell.rjust(16) for cell in row[2:])]))
    if options.html:
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        page = environment.from_string(_PAGE.read_text(encoding="utf-8"))
        text = page.render(runs=runs, rows=rows, machine=runs[-1].machine, drawing=draw(runs))
        write_atomically(options.html, text.encode("utf-8"))
    return 0


def read_runs(folder: Path) -> list[Run]:
    """Return the runs in a folder of pytest-benchmark's JSON, the oldest first."""
    runs = []
    for path in folder.rglob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        times = {
            benchmark["param"]: benchmark["stats"]["median"] * 1e6
            for benchmark in found["benchmarks"]
            if benchmark["param"]
        }
        commit, machine = found["commit_info"], found["machine_info"]
        label = f"{found.get('trt_rt', '?')} {commit['id'][:7]}{'*' if commit['dirty'] else ''}"
        cpu = machine["cpu"].get("brand_raw", machine["machine"])
        runs.append(Run(label, f"{cpu}, Python {machine['python_version']}", found["datetime"], times))
    return sorted(runs, key=lambda run: run.date)


def table(runs: list[Run]) -> list[tuple[str, ...]]:
    """Return the rows of the table: a row, the one below, and what the first adds, for each run."""
    added = [{each.row: each.added_us for each in overheads(run.times)} for run in runs]
    return [
        (row, below, *(f"{found[row]:+.3f}" if row in found else "not measured" for found in added))
        for row, below in LAYERS.items()
        if any(row in found for found in added)
    ]


def draw(runs: list[Run]) -> str:
    """Return a drawing as SVG: what each layer adds, from run to run."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "trt_rt"}):
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.subplots()
        labels = [f"{index + 1}: {run.label}" for index, run in enumerate(runs)]
        added = [{each.row: each.added_us for each in overheads(run.times)} for run in runs]
        measured = [row for row in LAYERS if any(row in found for found in added)]
        for index, row in enumerate(measured):
            points = [found.get(row, float("nan")) for found in added]
            style = ("-", "--", ":")[index % 3]
            axes.plot(labels, points, marker="o", linestyle=style, label=f"{row} - {LAYERS[row]}")
        axes.axhline(0, color="grey", linewidth=0.5)
        axes.set_ylabel("µs over the layer below")
        axes.tick_params(axis="x", rotation=30)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


if __name__ == "__main__":
    sys.exit(main())
