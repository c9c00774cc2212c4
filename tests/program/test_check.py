"""check= compares every engine and the whole program with eager PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import trt_rt
from tests.program.programs import PROGRAMS
from trt_rt.errors import CompileError
from trt_rt.program import part_builder


class Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        y = torch.relu(x * 2 + 1)
        return torch.exp(torch.fft.fft(y).real * 0.1 - 1) + 2


@pytest.fixture
def wrong_second_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder whose engines with exp in them compute something else."""
    build = part_builder.build_plan

    def build_wrongly(program: Any, **keywords: Any) -> Any:
        for node in program.graph.nodes:
            if node.target is torch.ops.aten.exp.default:
                node.target = torch.ops.aten.sin.default
        program.graph_module.recompile()
        return build(program, **keywords)

    monkeypatch.setattr(part_builder, "build_plan", build_wrongly)


def compiled(**settings: Any) -> trt_rt.Program:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=8)
    model = Split()
    program = trt_rt.compile(
        model, inputs=[torch.randn(3, 4)], dynamic_shapes=({0: batch},), backend="reference", **settings
    )
    assert model.calls == 0
    return program


def test_a_right_program_passes_and_is_as_before() -> None:
    program = compiled(check="eager")
    assert program.weights.calls == 0
    program(torch.randn(5, 4))
    assert program.weights.calls == 1


@pytest.mark.usefixtures("wrong_second_engine")
def test_a_wrong_engine_is_named_with_its_operators_and_the_difference() -> None:
    with pytest.raises(CompileError) as caught:
        compiled(check="eager")
    message = str(caught.value)
    assert "engine_1 (" in message
    assert "engine_0" not in message
    assert "aten.add.Tensor at File" in message
    assert "differs from eager PyTorch's by up to" in message
    for shape in ("(3, 4)", "(1, 4)", "(8, 4)"):
        assert f"with inputs of the shapes {shape}" in message
    assert "the whole program: its result 0 differs" in message


@pytest.mark.usefixtures("wrong_second_engine")
def test_differences_can_be_warnings() -> None:
    with pytest.warns(UserWarning, match="engine_1"):
        program = compiled(check="warn")
    assert isinstance(program, trt_rt.Program)


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(CompileError, match="check='egaer': it is None, 'eager' or 'warn'"):
        compiled(check="egaer")


@pytest.mark.parametrize(
    "name",
    [
        "KV cache",
        "writes to its input",
        "mutated parameter",
        "returned views",
        "nested arguments",
        "complex",
        "item",
    ],
)
def test_hard_programs_pass(name: str) -> None:
    case = PROGRAMS[name]
    args, kwargs = case.calls()[0]
    trt_rt.compile(
        case.make().eval(),
        inputs=args,
        kwarg_inputs=kwargs,
        dynamic_shapes=case.dynamic_shapes,
        backend="reference",
        check="eager",
    )
