"""A report to look at: one HTML file that needs nothing else."""

from __future__ import annotations

from importlib import resources
from typing import Any

import jinja2

from trt_rt.report.figures import drawings
from trt_rt.report.result import Result

__all__ = ["render_page"]


def render_page(result: Result) -> str:
    """Return a report as one HTML file, with its drawings in it.

    Parameters
    ----------
    result : Result
        What was measured. Names in it may contain any character: they are escaped.
    """
    source = resources.files("trt_rt.report").joinpath("page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    return template.render(result=result, drawings=drawings(result), facts=_facts(result), number=_number)


def _facts(result: Result) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [("engines", "; ".join(result.engines))]
    facts += result.versions.items()
    facts += ((name.replace("_", " "), value) for name, value in result.machine.items() if value is not None)
    facts += result.settings.items()
    return facts


def _number(microseconds: float) -> str:
    """Return a time with three significant digits."""
    if microseconds >= 1000:
        return f"{microseconds:,.0f}"
    return f"{microseconds:.3g}" if microseconds < 100 else f"{microseconds:.0f}"
