"""Files that other versions of PyTorch wrote load with this one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

import trt_rt
from tests.archive.of_other_torch import FILES, Model, example, write
from tests.archive.saved import MANIFEST

_WRITTEN = sorted(FILES.glob("*.pt2"))


def _check(path: Path) -> None:
    program, model = trt_rt.load(path), Model().eval()
    assert len(program.partition.engines) == 2
    for batch in (4, 2, 64):
        expected = model(*example(batch), scale=2.0)
        torch.testing.assert_close(program(*example(batch), scale=2.0), expected)
    assert program.weights.calls == 3


@pytest.mark.parametrize("path", _WRITTEN, ids=lambda path: path.stem)
def test_a_file_of_another_pytorch(path: Path) -> None:
    _check(path)


def test_there_are_files_of_two_versions() -> None:
    versions = set()
    for path in _WRITTEN:
        with zipfile.ZipFile(path) as file:
            manifest = json.loads(file.read(f"archive/{MANIFEST}"))
        versions.add(manifest["made_with"]["torch"].partition("+")[0])
    assert {"2.11.0", "2.13.0"} <= versions


def test_a_file_of_this_pytorch(tmp_path: Path) -> None:
    write(tmp_path / "program.pt2")
    _check(tmp_path / "program.pt2")
