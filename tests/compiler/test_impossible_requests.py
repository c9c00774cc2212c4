"""A request that no builder can fulfil is refused at once, in a sentence that names the option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim

import trt_rt
from tests import isolated
from trt_rt import CompileError, build

RANGE = ((1, 4), (2, 4), (4, 4))


def builders() -> list[str]:
    return [name for name in ("tensorrt_rtx", "reference") if trt_rt.backends()[name].can_build]


@pytest.mark.parametrize("backend", builders())
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"workspace_bytes": 10**30}, "workspace_bytes=10+: give 1 to"),
        ({"workspace_bytes": 1.5}, r"workspace_bytes=1\.5"),
        ({"workspace_bytes": "1"}, "workspace_bytes='1'"),
        ({"optimization_level": 3.0}, r"optimization_level=3\.0"),
        ({"optimization_level": True}, "optimization_level=True"),
        ({"compute_capabilities": 5}, "compute_capabilities=5"),
        ({"profiles": {"input": RANGE}}, "profiles must be a list of dicts"),
        ({"profiles": ["input"]}, "profile 0 is a str"),
        ({"profiles": [{"input": (1, 2, 3)}]}, "profile 0, input 'input': a range is three shapes"),
        ({"profiles": [{"input": ((1.5, 4), *RANGE[1:])}]}, "profile 0, input 'input': .*64-bit integers"),
        ({"profiles": [{"input": (*RANGE[:2], (10**30, 4))}]}, "profile 0, input 'input': .*64-bit integers"),
        ({"input_names": ["a", "b"]}, r"input_names=\['a', 'b'\]: the model has 1"),
        ({"output_names": ["a", "b"]}, r"output_names=\['a', 'b'\]: the model has 1"),
        ({"device": "tpu"}, "device='tpu': a plan is built for"),
    ],
)
def test_the_option_is_named(options: dict[str, Any], says: str, backend: str) -> None:
    batch = {0: Dim("batch", min=1, max=8)}
    with pytest.raises(CompileError, match=says):
        build(torch.nn.ReLU(), (torch.zeros(2, 4),), dynamic_shapes=(batch,), backend=backend, **options)


@pytest.mark.parametrize("backend", builders())
def test_a_timing_cache_that_cannot_be_written_is_refused_before_the_build(
    backend: str, tmp_path: Path
) -> None:
    cache = tmp_path / "missing" / "cache"
    with pytest.raises(FileNotFoundError, match="there is no folder") as caught:
        build(Unexportable(), (torch.zeros(2, 4),), backend=backend, timing_cache=cache)
    assert caught.value.filename == str(cache)


class Unexportable(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the export has begun")


def test_a_full_disk_under_the_timing_cache_is_an_os_error(tmp_path: Path) -> None:
    if "tensorrt_rtx" not in builders():
        pytest.skip(trt_rt.backends()["tensorrt_rtx"].reason)
    code = """
import resource, signal, sys, torch, trt_rt
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
trt_rt.build(torch.nn.ReLU(), (torch.zeros(2, 4),), backend="tensorrt_rtx")
resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
try:
    trt_rt.build(torch.nn.ReLU(), (torch.zeros(2, 4),), backend="tensorrt_rtx", timing_cache=sys.argv[1])
except OSError as error:
    print(type(error).__name__, error.filename, error.strerror)
"""
    cache = tmp_path / "cache"
    done = isolated.run_python(code, cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"OSError {cache} cannot write ")
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []
