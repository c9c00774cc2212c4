"""The files of the reference backend import each other in one direction only."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

from trt_rt import reference

FOLDER = Path(reference.__file__).parent


def imports_of(file: Path) -> set[str]:
    """The files of the folder that a file imports anywhere: at its top, in a function, for types."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trt_rt.reference"):
            module = (node.module or "").removeprefix("trt_rt.reference").removeprefix(".")
            found.update([module] if module else [alias.name for alias in node.names])
    return found


def test_no_circle() -> None:
    imports = {file.stem: imports_of(file) for file in FOLDER.glob("*.py") if file.stem != "__init__"}
    assert set().union(*imports.values()) <= set(imports)
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which lists the circle
