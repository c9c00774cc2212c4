"""The directive `bench-figures`: the drawings of a result of `trt-rt bench`, in a page.

    ```{bench-figures} measurements/cnn.json
    :only: modes latency
    ```

The file is relative to docs/. `only` names the kinds of drawings; without it all of them are drawn.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from trt_rt.report.figures import drawings
from trt_rt.report.result import read_result

__all__ = ["BenchFigures", "setup"]


class BenchFigures(SphinxDirective):
    """Draws the figures of one result, with their captions and the machine that was measured."""

    required_arguments = 1
    option_spec = {"only": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Return the figures as HTML: their colours are those of the page."""
        path = Path(self.env.srcdir, self.arguments[0])
        self.env.note_dependency(str(path))
        result = read_result(path)
        kinds = self.options.get("only", "").split()
        chosen = [each for each in drawings(result) if not kinds or each.identifier.split("-")[0] in kinds]
        if not chosen:
            raise self.error(f"{path} has no drawing of the kinds {kinds}.")
        name = Path(self.arguments[0]).stem
        return [nodes.raw("", _figure(name, each), format="html") for each in chosen]


def _figure(name: str, drawing: Any) -> str:
    # Two results in one page have drawings of the same kinds, so identifiers carry the name of the result.
    svg = drawing.svg.replace(f'"{drawing.identifier}-', f'"{name}-{drawing.identifier}-')
    svg = svg.replace(f"#{drawing.identifier}-", f"#{name}-{drawing.identifier}-")
    title, caption = html.escape(drawing.title), html.escape(drawing.caption)
    return f"<figure>{svg}<figcaption><b>{title}.</b> {caption}</figcaption></figure>"


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("bench-figures", BenchFigures)
    return {"parallel_read_safe": True}
