"""The report as a page: every figure is there, names are escaped, a browser shows it without an error."""

from __future__ import annotations

import dataclasses
import html.parser
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.patience import SECONDS_UNTIL_DEADLOCK

pytest.importorskip("hdrh", reason="the package hdrhistogram is not installed")

import trt_rt
from tests.reference import plans
from trt_rt import report
from trt_rt.report.result import MeasuredLayer, Step

_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_FIGURES = ["modes-0", "distribution-0", "throughput", "layers", "memory", "partition"]


@pytest.fixture(scope="module")
def result() -> report.Result:
    settings = report.BenchSettings(timing=report.Timing(duration=0.01, warm_up=0.05), threads=(1, 2))
    with trt_rt.Engine.from_bytes(plans.affine(), name="affine") as engine:
        target = report.EngineTarget(engine, "affine.plan")
        measured = report.bench(target, [target.workload({})], settings)
    return dataclasses.replace(
        measured,
        layers=(MeasuredLayer("affine", "<script>alert('$x$')</script>", 3.0),),
        partition=(Step("engine_0", "aten.mul"), Step("PyTorch", "aten.nonzero", "$ not in the <parser>")),
    )


class _Reader(html.parser.HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.figures: list[str] = []
        self.identifiers: list[str] = []
        self.used: list[str] = []
        self.tags: list[str] = []
        self.external: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            value = value or ""
            if name == "id":
                self.identifiers.append(value)
                if tag == "figure":
                    self.figures.append(value)
            if value.startswith("url(#"):
                self.used.append(value[5:-1])
            if name in ("href", "xlink:href", "src"):
                if value.startswith("#"):
                    self.used.append(value[1:])
                else:
                    self.external.append(value)


def test_every_figure_is_in_the_page(result: report.Result) -> None:
    reader = _Reader(report.render_page(result))
    assert reader.figures == _FIGURES
    assert reader.tags.count("svg") == len(_FIGURES)


def test_the_page_needs_nothing_else(result: report.Result) -> None:
    reader = _Reader(report.render_page(result))
    assert reader.external == []
    assert "script" not in reader.tags


def test_names_are_escaped(result: report.Result) -> None:
    page = report.render_page(dataclasses.replace(result, target="<b>plan</b> & co"))
    assert "<b>plan" not in page
    assert "&lt;b&gt;plan&lt;/b&gt; &amp; co" in page


def test_identifiers_are_unique_and_lead_somewhere(result: report.Result) -> None:
    reader = _Reader(report.render_page(result))
    assert len(reader.identifiers) == len(set(reader.identifiers))
    assert set(reader.used) <= set(reader.identifiers)
    assert reader.used


def test_ten_modes_and_four_shapes_stay_below_a_megabyte(result: report.Result) -> None:
    cases = tuple(
        dataclasses.replace(result.cases[mode % len(result.cases)], mode=f"mode {mode}", shapes=f"{shapes}x3")
        for shapes in range(4)
        for mode in range(10)
    )
    assert len(report.render_page(dataclasses.replace(result, cases=cases)).encode()) < 1_000_000


@pytest.mark.skipif(
    _CHROMIUM is None, reason="needs Chromium: neither chromium nor google-chrome is installed"
)
def test_a_browser_shows_every_figure(result: report.Result, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(report.render_page(result), encoding="utf-8")
    # A page around the report tells what the browser made of it: sizes of drawings, and errors.
    (tmp_path / "index.html").write_text(
        """<!doctype html><iframe src="report.html" width="390" height="800"></iframe>
        <pre id="found"></pre><script>
        const frame = document.querySelector("iframe"), errors = [];
        frame.contentWindow.addEventListener("error", event => errors.push(event.message));
        frame.addEventListener("load", () => {
          const page = frame.contentDocument;
          const sizes = [...page.querySelectorAll("figure svg")].map(svg => {
            const box = svg.getBoundingClientRect();
            const drawn = box.width > 100 && box.width <= 390 && box.height > 30;
            return drawn ? "drawn" : `${box.width}x${box.height}`;
          });
          const wide = page.documentElement.scrollWidth > 390 ? "too wide" : "fits";
          document.getElementById("found").textContent = [wide, ...sizes, ...errors].join(" ");
        });</script>""",
        encoding="utf-8",
    )
    assert _CHROMIUM is not None
    shown = subprocess.run(
        [
            _CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            (tmp_path / "index.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
    ).stdout
    assert f'<pre id="found">fits {" ".join(["drawn"] * len(_FIGURES))}</pre>' in shown
