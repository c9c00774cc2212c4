"""The table over plan files: what is in it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import real_engines
import torch

from tests.factories import reference

ROWS = (
    "execute_async_v3",
    "loop by hand",
    "trt_rt: module",
    "trt_rt: module, pre-allocated",
    "trt_rt: module, out=",
    "trt_rt: bind",
    "trt_rt: module, graphs",
    "trt_rt: module, graphs, pre-allocated",
    "trt_rt: bind, graphs",
    "trt_rt: program as one graph, pre-allocated",
)


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    for kind in ("relu", "two", "nonzero"):
        made = reference.make_cpu(kind)
        assert made is not None
        tmp_path.joinpath(f"{kind}.plan").write_bytes(made["plan"])
    return tmp_path


def run(plans: Path, *engines: str, batch: int = 3) -> str:
    table = plans / "table.md"
    arguments = ["--plans", str(plans), "--device", "cpu", "--rounds", "2", "--batches", str(batch)]
    status = real_engines.main([*arguments, "--engines", *engines, "--markdown", str(table)])
    assert status == 0
    return table.read_text()


def test_every_way_has_a_row(plans: Path) -> None:
    text = run(plans, "relu", "two")
    for engine in ("relu", "two"):
        section = text.split(f"### {engine}, batch 3")[1].split("###")[0]
        lines = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
        assert tuple(lines[1:][1:]) == ROWS


def test_what_is_wrong_is_not_timed(plans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = real_engines.PlainCalls.__call__

    def wrong(*arguments: object) -> list[torch.Tensor]:
        return [output + 1 for output in right(*arguments)]

    monkeypatch.setattr(real_engines.PlainCalls, "__call__", wrong)
    with pytest.raises(AssertionError, match=r"execute_async_v3: Tensor-likes are not close"):
        run(plans, "relu")


def test_a_batch_that_no_profile_admits(plans: Path) -> None:
    with pytest.raises(ValueError, match=r"no profile of .* admits batch 33"):
        run(plans, "relu", batch=33)


def test_an_engine_that_is_not_there(plans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert real_engines.main(["--plans", str(plans), "--device", "cpu"]) == 2
    assert "no plans named ['cnn', 'bert']" in capsys.readouterr().err
