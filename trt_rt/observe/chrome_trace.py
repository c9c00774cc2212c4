"""A trace in Chrome's format: torch.profiler's events, with names for our spans, and with TensorRT's layers.

The format is described in "Trace Event Format" of the Chromium project. Times are microseconds.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trt_rt.module.call_observer import Span

__all__ = ["MARK", "RecordedSpans", "completed_trace"]

MARK = "trt_rt span "
"""Begins the names of our events in what torch.profiler writes; the number of a span follows."""

_FIRST_TRACK = 1 << 30
"""Tracks of layers have numbers from here on, beyond those that Linux gives to threads."""

_CATEGORY = "user_annotation"
"""The category of ``record_function``, so that tools that know torch.profiler's categories show our spans."""


@dataclass
class RecordedSpans:
    """What is known of spans besides their times.

    Attributes
    ----------
    by_number : dict
        Each span by the number in its mark.
    layers : dict
        Names and milliseconds of the layers that TensorRT has told of, by the number of the run's span.
    """

    by_number: dict[int, Span] = field(default_factory=dict)
    layers: dict[int, list[tuple[str, float]]] = field(default_factory=dict)


def completed_trace(recorded: bytes, spans: RecordedSpans, *, is_compressed: bool) -> bytes:
    """Return the trace that torch.profiler has written, with spans named and layers added.

    Parameters
    ----------
    recorded : bytes
        JSON, as ``export_chrome_trace`` writes it.
    spans : RecordedSpans
        What its marks stand for.
    is_compressed : bool
        Whether to compress the result with gzip.

    Returns
    -------
    bytes
        JSON that any reader of the format takes.
    """
    trace = json.loads(recorded)
    events = trace["traceEvents"]
    runs = []
    for event in events:
        number = _number(event)
        if number is None or number not in spans.by_number:
            continue
        _describe(event, spans.by_number[number])
        if number in spans.layers and event["ph"] == "X" and event.get("cat") == _CATEGORY:
            runs.append((event, spans.by_number[number], spans.layers[number]))
    events += _layer_events(runs)
    data = json.dumps(trace, separators=(",", ":")).encode()
    return gzip.compress(data) if is_compressed else data


def _number(event: dict[str, Any]) -> int | None:
    name = event.get("name")
    if not isinstance(name, str) or not name.startswith(MARK):
        return None
    rest = name[len(MARK) :]
    return int(rest) if rest.isdecimal() else None


def _describe(event: dict[str, Any], span: Span) -> None:
    event["name"] = span.name
    if event.get("cat") == "cpu_op":  # an event of the GPU keeps its category
        event["cat"] = _CATEGORY
    known = {"kind": span.kind, "engine": span.engine, "detail": span.detail, "raised": span.error}
    counts = {name: count for name, count in span.counts.items() if count}
    event.setdefault("args", {}).update({name: value for name, value in known.items() if value} | counts)


def _layer_events(
    runs: list[tuple[dict[str, Any], Span, list[tuple[str, float]]]],
) -> Iterator[dict[str, Any]]:
    """Yield the layers of each run, one after the other, on a track for each engine and thread."""
    tracks: dict[tuple[Any, str], int] = {}
    ends: dict[int, float] = {}
    for run, span, layers in sorted(runs, key=lambda each: each[0]["ts"]):
        key = (run["tid"], span.engine)
        if key not in tracks:
            tracks[key] = _FIRST_TRACK + len(tracks)
            yield {
                "ph": "M",
                "name": "thread_name",
                "pid": run["pid"],
                "tid": tracks[key],
                "args": {"name": f"layers of {span.engine} (thread {run['tid']})"},
            }
        track = tracks[key]
        begin = max(run["ts"], ends.get(track, 0.0))
        for layer, ms in layers:
            yield {
                "ph": "X",
                "cat": "trt_rt layer",
                "name": layer,
                "pid": run["pid"],
                "tid": track,
                "ts": begin,
                "dur": ms * 1000,
                "args": {"engine": span.engine},
            }
            begin += ms * 1000
        ends[track] = begin
