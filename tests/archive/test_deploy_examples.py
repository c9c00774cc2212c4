"""The examples of docs/deploy.md, each in a process of its own, the second without a compiler."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trt_rt

_PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
_WITHOUT_COMPILER = """
import sys
names = ("onnx", "onnxscript", "trt_rt.compiler", "trt_rt.program")
sys.modules.update(dict.fromkeys(names))
"""


def test_the_examples_run_in_order_in_separate_processes(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the package cryptography is not installed")
    examples = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), flags=re.DOTALL)
    assert len(examples) == 4
    root = str(Path(trt_rt.__file__).parents[1])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    for number, code in enumerate(examples):
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", (_WITHOUT_COMPILER if number else "") + code],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": search, "TRT_RT_CACHE_DIR": str(tmp_path)},
        )
        assert result.returncode == 0, result.stderr
        for promised in re.findall(r"print\(.*\)  # (.*)", code):
            assert promised in result.stdout
