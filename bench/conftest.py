"""Makes the benches' own modules importable, and says how to build them if they are not built."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import trt_rt

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH))

for compiled in ("prepared_call", "null_engine/null_context"):
    if not BENCH.joinpath(compiled + sysconfig.get_config_var("EXT_SUFFIX")).exists():
        raise pytest.UsageError(
            f"bench/{compiled} is not built for this Python; run: python bench/setup.py build_ext --inplace"
        )


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Note the version that was measured, for history.py."""
    output_json["trt_rt"] = trt_rt.__version__
