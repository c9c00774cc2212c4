"""Sizes as expressions."""

from __future__ import annotations

import pytest

from trt_rt import PlanError
from trt_rt.operator.expressions import is_symbol, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        ("s0", 10),
        ("2*s0 + n", 23),
        ("(s0 - 1)//2 + 1", 5),
        ("-s0 + 12", 2),
        ("s0 % n", 1),
        ("max(s0, n)", 10),
        ("min(s0, n, 2)", 2),
        ("((((s0))))", 10),
    ],
)
def test_what_an_expression_gives(text: str, expected: int) -> None:
    assert parse_size(text, ("s0", "n"))({"s0": 10, "n": 3}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s1",
        "s0.real",
        "s0[0]",
        "s0()",
        "s0 ** 9 ** 9",
        "2 ** 2",
        "1 << 99999",
        "s0 / 2",
        "__import__('os').system('true')",
        "(lambda: 1)()",
        "[1 for _ in (1,)]",
        "max(s0)",
        "max(s0, key=s0)",
        "max(*s0, 1)",
        "abs(s0, 1)",
        "True",
        "1.5",
        "'s0'",
        "s0 if s0 else 1",
        "s0; 1",
        "s0 :=1",
        "9" * 30,
        "1+" * 300 + "1",
        "1+" * 240 + "x",
        "\0",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        parse_size(text, ("s0",))


def test_names_of_sizes() -> None:
    assert is_symbol("s0")
    assert is_symbol("batch_size")
    assert not any(map(is_symbol, ("", "0s", "s 0", "2*s0", "max", "é", "?u0")))
