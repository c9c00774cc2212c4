"""The examples of docs/deploy.md and README.md in separate processes; only the first has a compiler."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trt_rt
from tests.patience import SECONDS_UNTIL_DEADLOCK

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "deploy.md"
_README = _ROOT / "README.md"
_WITHOUT_COMPILER = """
import sys
names = ("onnx", "onnxscript", "trt_rt.compiler", "trt_rt.program")
sys.modules.update(dict.fromkeys(names))
"""


def test_the_examples_run_in_order_in_separate_processes(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the package cryptography is not installed")
    examples = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), flags=re.DOTALL)
    assert len(examples) == 4
    _run_in_order(examples, tmp_path)


def test_the_first_example_is_what_most_people_need() -> None:
    code = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), flags=re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line]) <= 5


def test_the_example_of_the_readme_loads_in_a_process_without_a_compiler(tmp_path: Path) -> None:
    (code,) = (
        each
        for each in re.findall(r"```python\n(.*?)```", _README.read_text(), flags=re.DOTALL)
        if "trt_rt.save(" in each
    )
    saving, loading = code.split("program = trt_rt.load", 1)
    _run_in_order([saving, f"import torch, trt_rt\nprogram = trt_rt.load{loading}"], tmp_path)


def _run_in_order(examples: list[str], folder: Path) -> None:
    root = str(Path(trt_rt.__file__).parents[1])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    for number, code in enumerate(examples):
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", (_WITHOUT_COMPILER if number else "") + code],
            capture_output=True,
            text=True,
            timeout=SECONDS_UNTIL_DEADLOCK,
            check=False,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": search, "TRT_RT_CACHE_DIR": str(folder)},
        )
        assert result.returncode == 0, result.stderr
        for promised in re.findall(r"print\(.*\)  # (.*)", code):
            assert promised in result.stdout
