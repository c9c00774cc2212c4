"""The examples of README.md and docs/modes.md run as they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trt_rt.runtime import set_multi_device_safe_mode

_PAGE = Path(__file__).parents[1] / "docs" / "modes.md"


def _examples() -> list[object]:
    """Return each example of docs/modes.md with its heading."""
    examples: list[object] = []
    for section in _PAGE.read_text().split("\n## ")[1:]:
        heading = section.partition("\n")[0]
        for code in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL):
            examples.append(pytest.param(code, id=heading))
    return examples


@pytest.fixture(autouse=True)
def _process_defaults() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    set_multi_device_safe_mode(False)


@pytest.mark.parametrize("code", _examples())
def test_an_example_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, str(_PAGE), "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out
    # What a comment after print() promises is printed.
    for promised in re.findall(r"print\(.*\)  # (.*)", code):
        for part in promised.split("..."):
            assert part.strip() in printed


def test_the_example_of_the_readme_runs() -> None:
    readme = Path(__file__).parents[1] / "README.md"
    (code,) = re.findall(r"```python\n(.*?)```", readme.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, str(readme), "exec"), names)
    torch.testing.assert_close(names["y"], names["network"](names["x"]).detach())


def test_every_control_has_an_example() -> None:
    headings = [section.partition("\n")[0] for section in _PAGE.read_text().split("\n## ")[1:]]
    assert len(_examples()) == len(headings) - 1  # all but the table
