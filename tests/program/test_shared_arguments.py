"""Programs that write to an argument, called with arguments that share memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trt_rt
from tests.dynamo_backend import register
from trt_rt.errors import InputValueError

Pair = tuple[torch.Tensor, torch.Tensor]


class Writes(nn.Module):
    """It reads `b` after it has written to `a`."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a.add_(1)
        return torch.relu(a * b) + b


class Reads(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.relu(a * b) + b


def example() -> list[torch.Tensor]:
    return [torch.randn(3, 4), torch.randn(3, 4)]


SHARED: dict[str, Callable[[torch.Tensor], Pair]] = {
    "one tensor": lambda memory: (memory[:3, :4],) * 2,
    "rows": lambda memory: (memory[:3, :4], memory[2:5, :4]),
    "columns": lambda memory: (memory[:3, :4], memory[:3, 3:7]),
}
APART: dict[str, Callable[[torch.Tensor], Pair]] = {
    "rows": lambda memory: (memory[:3, :4], memory[3:6, :4]),
    "columns": lambda memory: (memory[:3, :4], memory[:3, 4:8]),
    "two tensors": lambda memory: (memory[:3, :4], torch.ones(3, 4)),
}


@pytest.fixture(scope="module")
def program() -> trt_rt.Program:
    return trt_rt.compile(Writes().eval(), inputs=example(), backend="reference")


@pytest.fixture(scope="module")
def loaded(program: trt_rt.Program, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path: Path = tmp_path_factory.mktemp("shared") / "writes.pt2"
    trt_rt.save(program, path)
    return trt_rt.load(path)


@pytest.mark.parametrize("made", ["program", "loaded"])
@pytest.mark.parametrize("kind", SHARED)
def test_shared_memory_that_is_written_to_is_refused(
    kind: str, made: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(made)
    memory = torch.randn(6, 8)
    before = memory.clone()
    with pytest.raises(InputValueError, match=r"the model writes to a, which shares memory with b"):
        run(*SHARED[kind](memory))
    assert torch.equal(memory, before)


@pytest.mark.parametrize("kind", APART)
def test_tensors_beside_each_other_are_taken(kind: str, program: trt_rt.Program) -> None:
    memory, others = [torch.arange(48.0).reshape(6, 8) for _ in range(2)]
    expected = Writes()(*APART[kind](others))
    torch.testing.assert_close(program(*APART[kind](memory)), expected)
    assert torch.equal(memory, others)


@pytest.mark.parametrize("kind", SHARED)
def test_shared_memory_that_is_only_read_is_taken(kind: str) -> None:
    program = trt_rt.compile(Reads().eval(), inputs=example(), backend="reference")
    memory = torch.randn(6, 8)
    torch.testing.assert_close(program(*SHARED[kind](memory)), Reads()(*SHARED[kind](memory)))


class TestTorchCompile:
    @pytest.fixture(autouse=True)
    def _registered(self) -> Iterator[None]:
        torch._dynamo.reset()
        register()
        yield
        torch._dynamo.reset()

    @pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*", "ignore::FutureWarning:torch.*")
    @pytest.mark.parametrize("kind", SHARED)
    def test_it_is_right_with_shared_memory(self, kind: str) -> None:
        compiled = torch.compile(Writes().eval(), backend="trt_rt", options={"backend": "reference"})
        for shares in (APART["rows"], SHARED[kind], APART["columns"]):
            memory = torch.randn(6, 8)
            others = memory.clone()
            with torch.no_grad():
                expected = Writes()(*shares(others))
                torch.testing.assert_close(compiled(*shares(memory)), expected)
            assert torch.equal(memory, others)
