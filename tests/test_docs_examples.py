"""The examples of README.md and of docs/ run as they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dynamo_backend import register
from trt_rt.runtime import set_multi_device_safe_mode

_ROOT = Path(__file__).parents[1]
_MODES, _COMPILE, _PORTING, _FILES, _MEASURE = (
    _ROOT / "docs" / f"{page}.md" for page in ("modes", "compile", "porting", "files", "measure")
)
_README = _ROOT / "README.md"
_TUTORIALS = sorted((_ROOT / "docs" / "tutorials").glob("*.md"))
_PAGES = (_ROOT / "docs" / "index.md", *_TUTORIALS, _MODES, _COMPILE, _PORTING, _FILES, _MEASURE, _README)


def _examples(page: Path) -> list[object]:
    """Return each example of a page with its heading."""
    examples: list[object] = []
    # At two signs or more: one begins a comment, too.
    for section in re.split(r"^##+ ", page.read_text(), flags=re.MULTILINE):
        heading = section.partition("\n")[0].removeprefix("# ")
        for code in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL):
            examples.append(pytest.param(page, code, id=f"{page.name}-{heading}"))
    return examples


@pytest.fixture(autouse=True)
def _process_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.manual_seed(0)
    monkeypatch.setenv("TRT_RT_CACHE_DIR", str(tmp_path))  # nothing stays in the user's folders
    monkeypatch.chdir(tmp_path)  # some examples write files
    register()
    yield
    torch._dynamo.reset()
    set_multi_device_safe_mode(False)


# PyTorch's own code warns about itself while torch.compile runs.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*", "ignore::FutureWarning:torch.*")
@pytest.mark.parametrize(
    ("page", "code"),
    [example for page in _PAGES for example in _examples(page)],
)
def test_an_example_runs(page: Path, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, str(page), "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out
    # What a comment after print() promises is printed.
    for promised in re.findall(r"print\(.*\)  # (.*)", code):
        for part in promised.split("..."):
            assert part.strip() in printed


def test_the_first_example_of_the_readme_is_right() -> None:
    code = re.findall(r"```python\n(.*?)```", _README.read_text(), flags=re.DOTALL)[0]
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, str(_README), "exec"), names)
    torch.testing.assert_close(names["y"], names["network"](names["x"]).detach())


def test_every_control_has_an_example() -> None:
    headings = [section.partition("\n")[0] for section in _MODES.read_text().split("\n## ")[1:]]
    assert len(_examples(_MODES)) == len(headings) - 1  # all but the table
