"""CONTRIBUTING.md's table of behaviours and the tests that show them name the same numbers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parent.parent


def _marked(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.behaviour":
            yield from map(ast.literal_eval, node.args)


def test_every_behaviour_has_a_test_and_a_row() -> None:
    guide = (_ROOT / "CONTRIBUTING.md").read_text()
    table = [int(number) for number in re.findall(r"^\| (\d+) \|", guide, re.M)]
    assert table == sorted(set(table)), "the table is sorted and has one row per behaviour"
    marked = {number for path in (_ROOT / "tests").rglob("test_*.py") for number in _marked(path)}
    assert marked == set(table)
