from __future__ import annotations

from pathlib import Path

import pytest
from torch.export import ExportedProgram

from tests.archive.saved import exported_counting
from trt_rt.archive import save


@pytest.fixture(scope="session")
def exported() -> ExportedProgram:
    return exported_counting()


@pytest.fixture(scope="session")
def archive(exported: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved program, which tests must not change."""
    path = tmp_path_factory.mktemp("archive") / "program.pt2"
    save(exported, path)
    return path
