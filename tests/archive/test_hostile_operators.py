"""Files whose programs call PyTorch's operators to end the process, or to see its memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.archive.forged_programs import Call, forged_program, number, tensor
from trt_rt.archive import load, save
from trt_rt.errors import ArchiveError

pytestmark = pytest.mark.behaviour(28, 40)


def _run(path: Path, inputs: list[torch.Tensor], calls: list[Call], result: str | None = None) -> Any:
    program = load(forged_program(path, inputs, calls, [tensor(result or f"y{len(calls) - 1}")]))
    return program(*inputs)[0]


def test_norms_of_weights_are_as_many_as_the_weights_need(tmp_path: Path) -> None:
    # PyTorch's kernel reads beyond the end of the second operand.
    call = {
        "target": "aten._weight_norm.default",
        "inputs": [("v", tensor("x0")), ("g", tensor("x1")), ("dim", {"as_int": 0})],
    }
    with pytest.raises(ValueError, match="norms"):
        _run(tmp_path / "a.pt2", [torch.ones(4096, 64), torch.ones(1, 1)], [call])


@pytest.mark.parametrize("name", ["empty.memory_format", "empty_like.default", "new_empty.default"])
def test_no_operator_shows_memory_of_the_process(name: str, tmp_path: Path) -> None:
    size: Any = ("size", {"as_ints": [1000]})
    inputs = {
        "empty": [size],
        "empty_like": [("self", tensor("x0"))],
        "new_empty": [("self", tensor("x0")), size],
    }
    call = {"target": f"aten.{name}", "inputs": inputs[name.partition(".")[0]]}
    x = torch.full((1000,), 7.0)
    program = load(forged_program(tmp_path / "a.pt2", [x], [call], [tensor("y0")]))
    for _ in range(20):
        written = [torch.full((1000,), 7.0) for _ in range(8)]
        del written
        assert not program(x)[0].any()


def test_rows_with_nans_are_not_sorted(tmp_path: Path) -> None:
    call = {
        "target": "aten.unique_dim.default",
        "inputs": [("self", tensor("x0")), ("dim", {"as_int": 0})],
        "outputs": [tensor("y0"), tensor("a"), tensor("b")],
    }
    with pytest.raises(ValueError, match="NaN"):
        _run(tmp_path / "a.pt2", [torch.full((4, 2), float("nan"))], [call])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("max_pool2d.default", [("self", tensor("x0")), ("kernel_size", {"as_ints": [2**40, 1]})], "between"),
        (
            "sum.dim_IntList",
            [("self", tensor("x0")), ("dim", {"as_ints": [0]}), ("dtype", {"as_int": 6})],
            "dtype",
        ),
        ("relu.default", [("self", {"as_string": "x"})], "must be a tensor"),
        ("relu.default", [("self", tensor("x0")), ("self", tensor("x0"))], "given twice"),
        ("relu.default", [], "missing"),
        ("relu.default", [("self", tensor("x0")), ("other", tensor("x0"))], "position"),
        ("zeros_like.default", [("self", tensor("x0")), ("layout", {"as_layout": 1})], "layout"),
        ("add.Tensor", [("other", tensor("x0")), ("self", tensor("x0"))], "position"),
        ("zeros.default", [("size", {"as_ints": [1] * 5000})], "elements"),
    ],
)
def test_arguments_are_as_the_operator_declares_them(
    name: str, arguments: list[Any], message: str, tmp_path: Path
) -> None:
    call = {
        "target": f"aten.{name}",
        "inputs": arguments,
        "kinds": {"dtype": 2, "layout": 2},
    }
    with pytest.raises(ArchiveError, match=message):
        _run(tmp_path / "a.pt2", [torch.ones(1, 1, 4, 4)], [call])


_ITEM = {"target": "aten.item.default", "inputs": [("self", tensor("x1"))], "outputs": [number("n")]}


def test_numbers_that_the_program_computes_are_checked_too(tmp_path: Path) -> None:
    pool = {
        "target": "aten.max_pool2d.default",
        "inputs": [
            ("self", tensor("x0")),
            ("kernel_size", {"as_sym_ints": [{"as_name": "n"}, {"as_int": 1}]}),
        ],
    }
    x = torch.ones(1, 1, 4, 4)
    assert _run(tmp_path / "a.pt2", [x, torch.tensor(2)], [_ITEM, pool]).shape == (1, 1, 2, 4)
    with pytest.raises(ValueError, match="between"):
        _run(tmp_path / "a.pt2", [x, torch.tensor(2**40)], [_ITEM, pool])


def _product(name: str) -> Call:
    return {"target": "_operator.mul", "inputs": [("a", number(name)), ("b", number(name))]}


def test_numbers_cannot_grow_without_bound(tmp_path: Path) -> None:
    products = [
        {**_product(f"n{index}" if index else "n"), "outputs": [number(f"n{index + 1}")]}
        for index in range(60)
    ]
    with pytest.raises(ArchiveError, match="grow without bound"):
        _run(tmp_path / "a.pt2", [torch.ones(2), torch.tensor(3)], [_ITEM, *products], "x0")


@pytest.mark.parametrize(
    "value", [{"as_ints": [1, 2]}, {"as_string": "%100000d"}, tensor("x0"), {"as_tensors": [{"name": "x0"}]}]
)
def test_functions_of_numbers_take_numbers(value: Any, tmp_path: Path) -> None:
    product = {
        "target": "_operator.mul",
        "inputs": [("a", value), ("b", number("n"))],
        "outputs": [number("m")],
    }
    with pytest.raises(ArchiveError, match="takes numbers"):
        _run(tmp_path / "a.pt2", [torch.ones(2), torch.tensor(3)], [_ITEM, product], "x0")


def test_a_list_of_tensors_is_no_number(tmp_path: Path) -> None:
    pieces = {"target": "aten.unbind.int", "inputs": [("self", tensor("x0"))], "outputs": [number("n")]}
    product = {**_product("n"), "outputs": [number("m")]}
    with pytest.raises(ArchiveError, match="no number"):
        _run(tmp_path / "a.pt2", [torch.ones(2)], [pieces, product], "x0")


def test_indices_may_be_left_out(tmp_path: Path) -> None:
    index = {
        "target": "aten.index.Tensor",
        "inputs": [
            ("self", tensor("x0")),
            ("indices", {"as_optional_tensors": [{"as_none": True}, {"as_tensor": {"name": "x1"}}]}),
        ],
    }
    x = torch.arange(6).reshape(2, 3)
    assert _run(tmp_path / "a.pt2", [x, torch.tensor([2, 0])], [index]).tolist() == [[2, 0], [5, 3]]


class _Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.cond(
            x.sum() > 0,
            lambda x, g: torch.ops.aten._weight_norm(x, g, 0) + torch.empty_like(x),
            lambda x, g: x + g,
            (x, g),
        )
        return result


def test_operators_in_branches_are_checked_too(tmp_path: Path) -> None:
    x, g = torch.ones(100, 100), torch.full((100, 1), 2.0)
    save(torch.export.export(_Branches(), (x, g)), tmp_path / "a.pt2")
    program = load(tmp_path / "a.pt2")
    # The checks are not part of what is saved again.
    save(program, tmp_path / "b.pt2")
    for called in (program, load(tmp_path / "b.pt2"), copy.deepcopy(program)):
        for _ in range(20):
            written = [torch.full((100, 100), 7.0) for _ in range(8)]
            del written
            torch.testing.assert_close(called(x, g), torch.full((100, 100), 0.2))
            torch.testing.assert_close(called(-x, g), torch.ones(100, 100))
    torch.testing.assert_close(program.exported().module(check_guards=False)(-x, g), torch.ones(100, 100))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_program_with_checks_can_be_exported_and_traced(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.nn.functional.one_hot(x, 5), torch.empty_like(x).fill_(2)

    x = torch.tensor([1, 4])
    with torch.no_grad():
        save(torch.export.export(Model(), (x,)), tmp_path / "a.pt2")
    program = load(tmp_path / "a.pt2")
    expected = Model()(x)
    torch.testing.assert_close(torch.export.export(program, (x,)).module()(x), expected)
    torch.testing.assert_close(torch.compile(program, backend="eager", fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.jit.trace(program, (x,))(x), expected)
