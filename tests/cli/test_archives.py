"""``trt-rt inspect`` and ``trt-rt verify`` of files of programs."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
import torch

from trt_rt.archive import save
from trt_rt.cli import main

_SECRET = b"0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    exported = torch.export.export(torch.nn.Linear(4, 2), (torch.zeros(3, 4),))
    save(exported, path, signing_key=_SECRET)
    (tmp_path / "secret").write_bytes(_SECRET)
    (tmp_path / "other").write_bytes(_SECRET[::-1])
    return path


def test_inspect_tells_what_a_program_has(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "a program"
    assert found["signed"] is True
    assert found["operators"] == {"aten.linear.default": 1}
    assert found["records"]["data/weights/weight_0"] == 4 * 4 * 2
    assert main(["inspect", str(file)]) == 0
    assert "aten.linear.default" in capsys.readouterr().out


def test_verify_compares_hashes_and_signature(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret, other = (str(file.parent / name) for name in ("secret", "other"))
    assert main(["verify", str(file)]) == 0
    assert "is whole; its signature was not checked" in capsys.readouterr().out
    assert main(["verify", str(file), "--public-key", secret]) == 0
    assert "is signed with the key" in capsys.readouterr().out
    assert main(["verify", str(file), "--public-key", other]) == 1
    assert "signature does not fit" in capsys.readouterr().err
    assert main(["verify", str(file), "--public-key", str(file.parent / "none")]) == 1
    assert "none: No such file" in capsys.readouterr().err
    content = bytearray(file.read_bytes())
    content[content.index(b"aten")] ^= 1
    file.write_bytes(content)
    for command in ("verify", "inspect"):
        assert main([command, str(file)]) == 1
        error = capsys.readouterr().err
        assert str(file) in error
        assert "Traceback" not in error


def test_inspect_of_a_program_in_a_pipe(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe can be read once, and an archive is read from its end."""
    pipe = file.parent / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(file.read_bytes()), daemon=True)
    writer.start()
    assert main(["inspect", str(pipe)]) == 1
    assert "not a regular file" in capsys.readouterr().err
    writer.join()


def test_verify_with_a_large_file_as_key(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Devices such as /dev/zero have no end."""
    key = file.parent / "large"
    key.touch()
    os.truncate(key, 2 << 20)
    assert main(["verify", str(file), "--public-key", str(key)]) == 1
    assert "no key" in capsys.readouterr().err
