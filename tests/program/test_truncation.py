"""truncate_double: float64 is computed in float32 where the user says so, and only there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import trt_rt
from trt_rt.errors import CompileError
from trt_rt.module.find_engines import find_engines


class Doubles(nn.Module):
    """Weights, a buffer that is written to, an argument and results in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, dtype=torch.float64))
        self.register_buffer("total", torch.zeros(4, dtype=torch.float64))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.total.add_(x.sum(0))
        z = torch.relu(x * self.weight + self.total + y)
        return z * 2, z.float(), self.weight, torch.arange(4, dtype=torch.float64) + z


class Middle(nn.Module):
    """A few operators in float64 between operators in float32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x * 2 + 1).double()
        return torch.relu(y.cumsum(1).float() * 2 - 1)


def doubles() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4)


def compiled(model: nn.Module, *inputs: Any, **settings: Any) -> Any:
    return trt_rt.compile(model, inputs=inputs, backend="reference", **settings)


def test_float64_stays_in_pytorch_unless_the_user_says_otherwise() -> None:
    x = torch.randn(3, 4)
    assert len(compiled(Middle(), x).partition.splits) == 3
    program = compiled(Middle(), x, truncate_double=True, require_full_compilation=True)
    assert len(program.partition.engines) == 1
    torch.testing.assert_close(program(x), Middle()(x), rtol=1e-5, atol=1e-5)


def test_arguments_results_and_state_keep_their_dtypes() -> None:
    model = Doubles()
    program = compiled(model, *doubles(), truncate_double=True)
    assert len(program.partition.engines) == 1
    engine = find_engines(program)[0].engine
    assert {tensor.dtype for tensor in (*engine.inputs, *engine.outputs)} == {torch.float32}
    for _ in range(3):
        x, y = doubles()
        with torch.no_grad():
            wanted = model(x, y)
        found = program(x, y)
        assert [one.dtype for one in found] == [one.dtype for one in wanted]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        assert torch.equal(found[2], model.weight)  # what passes through is not rounded
    torch.testing.assert_close(program.weights.total, model.total, rtol=1e-5, atol=1e-5)
    assert model.weight.dtype is torch.float64


def test_values_are_those_of_float32() -> None:
    class Subtract(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + 1) - 1

    x = torch.full((2,), 1e-12, dtype=torch.float64)
    assert compiled(Subtract(), x, truncate_double=True)(x).tolist() == [0, 0]


def test_what_an_argument_gets_written_is_in_its_dtype() -> None:
    class Writes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x.mul_(2).add_(1)
            return (x * x).sum(1)

    program = compiled(Writes(), torch.randn(3, 4, dtype=torch.float64), truncate_double=True)
    x = torch.randn(3, 4, dtype=torch.float64)
    own = x.clone()
    wanted = Writes()(x)
    found = program(own)
    assert found.dtype is own.dtype is torch.float64
    torch.testing.assert_close((found, own), (wanted, x), rtol=1e-5, atol=1e-5)


def test_branches_and_complex_numbers_are_truncated_too() -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(x * 2 + 1)
            y = torch.cond(y.sum() > 8, lambda t: t.sin() + 1, lambda t: t.double().cos() - 1, (y,))
            return torch.fft.ifft(torch.fft.fft(y) * 2).real.relu() * 3

    x = torch.randn(3, 4, dtype=torch.float64)
    program = compiled(Branches(), x, truncate_double=True)
    for one in (x, x + 5):
        found = program(one)
        assert found.dtype is torch.float64
        torch.testing.assert_close(found, Branches()(one), rtol=1e-5, atol=1e-5)


def test_the_default_dtype_may_be_float64() -> None:
    class Default(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x * torch.ones(4) + torch.full((4,), 2.5)) * 2

    x = torch.randn(3, 4)
    torch.set_default_dtype(torch.float64)
    try:
        program = compiled(Default(), x, truncate_double=True, require_full_compilation=True)
        wanted = Default()(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert program(x).dtype is wanted.dtype
    torch.testing.assert_close(program(x), wanted, rtol=1e-5, atol=1e-5)


def test_the_check_allows_what_float32_differs() -> None:
    model = Doubles()
    compiled(model, *doubles(), truncate_double=True, check="eager")
    assert model.total.sum() == 0


def test_bits_of_float64_are_refused() -> None:
    class Bits(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2 + 1).view(torch.int64) + 1

    with pytest.raises(CompileError, match=r"reads the bits of a float64 tensor"):
        compiled(Bits(), torch.randn(2, 2, dtype=torch.float64), truncate_double=True)


def test_int64_is_computed_in_engines_as_it_is() -> None:
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2 + 1) * 3 - 7

    x = torch.tensor([2**40, -(2**40), 3])
    program = compiled(Large(), x)
    assert len(program.partition.engines) == 1
    assert torch.equal(program(x), Large()(x))


def test_the_user_s_old_name_of_it_is_known() -> None:
    with pytest.raises(CompileError, match="did you mean 'truncate_double'"):
        compiled(Middle(), torch.randn(3, 4), truncate_long_and_double=True)


def test_torch_compile_takes_it() -> None:
    from tests.dynamo_backend import register

    register()
    torch._dynamo.reset()
    options = {"truncate_double": True, "require_full_compilation": True}
    function = torch.compile(Middle(), backend="trt_rt", options=options)
    x = torch.randn(3, 4)
    torch.testing.assert_close(function(x), Middle()(x), rtol=1e-5, atol=1e-5)
    torch._dynamo.reset()


def test_a_copied_model_is_truncated_as_the_model_is() -> None:
    """Two weights of the same values, one of which is a result."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.rand(4, dtype=torch.float64))
            self.other = copy.deepcopy(self.one)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.relu(x * self.one + self.other) * self.one, self.other

    model = Twice()
    x = torch.randn(3, 4)
    found = compiled(model, x, truncate_double=True)(x)
    torch.testing.assert_close(found, model(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(found[1], model.other)
