"""The timing cache: read, used, written back."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.compiler.models import exported
from trt_rt import build
from trt_rt.backend import Backend
from trt_rt.compiler.timing_cache import attach_timing_cache, store_timing_cache


class Config:
    """An IBuilderConfig as TensorRT's is, for what TensorRT-RTX does not do: it takes any cache at all."""

    def __init__(self, *, accepts: bytes) -> None:
        self.accepts = accepts
        self.given: list[bytes] = []
        self.cache: Any = None

    def create_timing_cache(self, content: bytes) -> Any:
        self.given.append(content)
        if content not in (b"", self.accepts):
            return None
        return SimpleNamespace(serialize=lambda: content + b" and new timings")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.cache


def test_timings_in_a_file_are_used_and_written_back(tmp_path: Path) -> None:
    path = tmp_path / "timings"
    path.write_bytes(b"old")
    config = Config(accepts=b"old")
    attach_timing_cache(path, config, "tensorrt")
    store_timing_cache(path, config, "tensorrt")
    assert config.given == [b"old"]
    assert path.read_bytes() == b"old and new timings"
    assert list(tmp_path.iterdir()) == [path]


def test_timings_in_memory_are_used_and_written_back() -> None:
    holder = bytearray(b"old")
    config = Config(accepts=b"old")
    attach_timing_cache(holder, config, "tensorrt")
    store_timing_cache(holder, config, "tensorrt")
    assert holder == b"old and new timings"


def test_a_file_that_is_not_there_yet_is_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "timings"
    config = Config(accepts=b"")
    attach_timing_cache(path, config, "tensorrt")
    store_timing_cache(path, config, "tensorrt")
    assert path.read_bytes() == b" and new timings"
    assert not caplog.records


def test_a_corrupt_cache_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "timings"
    path.write_bytes(b"corrupt")
    config = Config(accepts=b"old")
    attach_timing_cache(path, config, "tensorrt")
    assert config.given == [b"corrupt", b""]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(path) in record.getMessage()
    assert "corrupt" in record.getMessage()
    store_timing_cache(path, config, "tensorrt")
    assert path.read_bytes() == b" and new timings"


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_the_real_builder_fills_a_cache(
    rtx: Backend, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "timings"
    memory = bytearray()
    for _ in range(2):
        plan = build(exported(), backend=rtx, timing_cache=path if kind == "file" else memory)
        assert plan.startswith(b"vtrt")
        assert path.read_bytes() if kind == "file" else memory
    # TensorRT-RTX says that its cache does nothing; a user who gives one is told.
    assert any("timing cache" in record.getMessage().lower() for record in caplog.records)
