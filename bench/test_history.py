"""The table and the page of history.py, over runs as pytest-benchmark writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import history
import pytest
from layers import LAYERS
from scenarios import scenarios_for


def _write(folder: Path, number: int, times: dict[str, float], cpu: str = "one") -> None:
    found = {
        "benchmarks": [{"param": row, "stats": {"median": us / 1e6}} for row, us in times.items()],
        "commit_info": {"id": f"{number:07d}abc", "dirty": False},
        "datetime": f"2026-01-{number:02d}T00:00:00",
        "machine_info": {"cpu": {"brand_raw": cpu}, "machine": "x86_64", "python_version": "3.11.7"},
        "trt_rt": f"0.{number}.0",
    }
    (folder / f"{number}.json").write_text(json.dumps(found))


def test_layers_are_rows_of_the_benches() -> None:
    names = {scenario.name for kind in ("cpu", "cuda") for scenario in scenarios_for(kind)}
    assert {*LAYERS, *LAYERS.values()} <= names


def test_the_last_runs_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, 1, {"bare_1x1": 1.0, "bind_1x1": 1.5})
    _write(tmp_path, 2, {"bare_1x1": 9.0, "bind_1x1": 99.0}, cpu="another")
    _write(tmp_path, 3, {"bare_1x1": 1.0, "bind_1x1": 1.25, "executor_prealloc_1x1": 2.0})
    page = tmp_path / "page.html"
    monkeypatch.setattr(sys, "argv", ["history.py", "--html", str(page), str(tmp_path)])
    assert history.main() == 0
    head, bind, executor = capsys.readouterr().out.splitlines()
    assert head.split()[2:] == ["0.1.0", "0000001", "0.3.0", "0000003"]
    assert bind.split() == ["bind_1x1", "bare_1x1", "+0.500", "+0.250"]
    assert executor.split() == ["executor_prealloc_1x1", "bind_1x1", "not", "measured", "+0.750"]
    text = page.read_text(encoding="utf-8")
    assert "<svg" in text
    assert "+0.750" in text


def test_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["history.py", str(tmp_path)])
    assert history.main() == 1
    assert "there are no runs" in capsys.readouterr().err
