"""The documents name files that exist, and their lists of files are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import trt_rt

_ROOT = Path(__file__).parent.parent
# Lists of contents name pages without their suffix; Sphinx checks those.
_CONTENTS = {"background.md", "guides.md", "index.md", "proof.md"}
_PAGES = [
    page
    for page in (_ROOT / "docs").rglob("*.md")
    if page.name not in _CONTENTS and page.parent.name != "reference" and "_build" not in page.parts
]
_DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "bench/README.md",
    *sorted(str(path.relative_to(_ROOT)) for path in _PAGES),
)

# Inline code, the target of a link, and the first word of a line in a code block.
_QUOTED = re.compile(r"`([^`\s]+)`|\]\(([^)\s#]+)[^)]*\)|^([\w./-]+)(?=\s|$)", re.M)
_SUFFIX = re.compile(r"\w\.(?:py|pyx|pxd|pxi|pyi|md|json|toml|txt)$")
_CODE_BLOCK = re.compile(r"^```python\n.*?^```$", re.M | re.S)


def _paths(text: str) -> set[str]:
    """What looks like a path of the repository: `trt_rt/...`, or a file by a suffix that is ours."""
    paths = set()
    for groups in _QUOTED.findall(_CODE_BLOCK.sub("", text)):
        path = next(group for group in groups if group)
        in_folder = re.match(r"(?:trt_rt|tests|bench|docs|tools)/", path) is not None
        if (in_folder or _SUFFIX.search(path)) and "//" not in path and not path.startswith("/"):
            paths.add(path)
    return paths


def _exists(path: str, document: Path) -> bool:
    package = _ROOT / "trt_rt"
    folders = (_ROOT, document.parent, package, *(folder for folder in package.iterdir() if folder.is_dir()))
    return any((folder / path.partition("::")[0]).exists() for folder in folders)


def _section(document: str, heading: str) -> str:
    text = (_ROOT / document).read_text()
    return text[text.index(f"\n## {heading}\n") + 1 :].split("\n## ")[0]


@pytest.mark.parametrize("name", _DOCUMENTS)
def test_every_path_that_a_document_names_exists(name: str) -> None:
    document = _ROOT / name
    paths = _paths(document.read_text())
    assert [path for path in sorted(paths) if not _exists(path, document)] == []


def test_the_readme_lists_every_folder_of_the_package() -> None:
    listed = re.findall(r"^trt_rt/(\w+)/ ", _section("README.md", "Where things are"), re.M)
    folders = {path.parent.name for path in (_ROOT / "trt_rt").glob("*/__init__.py")}
    assert sorted(listed) == sorted(folders)


def test_the_design_lists_every_file_of_the_core() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", _section("docs/design.md", "Files of `_core`"), re.M)
    listed = [file for row in rows for file in re.findall(r"`([^`]*)`", row)]
    core = (_ROOT / "trt_rt" / "_core").iterdir()
    files = {path.name for path in core if path.suffix in (".py", ".pyx", ".pxd", ".pxi")} - {"__init__.py"}
    assert sorted(listed) == sorted(files)
    assert rows == sorted(rows), "the table is sorted"


def test_the_reference_has_every_public_name() -> None:
    pages = [page.read_text() for page in (_ROOT / "docs" / "reference").glob("*.md")]
    described = set(re.findall(r"^\.\. auto\w+:: trt_rt\.(\w+)$", "\n".join(pages), re.M))
    names = {name for name in trt_rt.__all__ if not name.startswith("__")}
    errors = {name for name in names if name in trt_rt.errors.__all__}
    other_names_of_trt_module = {"PythonTorchTensorRTModule", "TorchTensorRTModule"}
    assert described - {"errors"} == names - errors - other_names_of_trt_module - {"errors"}
