"""What the ONNX of parts computes, next to PyTorch, for operators that torch.onnx takes in another way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from trt_rt.program.settings import CompileSettings
from trt_rt.program.stages import DividedProgram, divide_program, model_graph


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def divided(
    function: Callable[..., Any], settings: CompileSettings, x: torch.Tensor, **keywords: Any
) -> DividedProgram:
    return divide_program(model_graph(torch.export.export(Calls(function), (x,), **keywords)), settings)


def results(program: DividedProgram, x: torch.Tensor) -> list[torch.Tensor]:
    """What the ONNX of the only part computes."""
    from onnx.reference import ReferenceEvaluator

    assert not [step for step in program.partition.torch_operators if not step.is_glue]
    (part,) = program.divided.parts
    found = ReferenceEvaluator(part.converted.model_proto).run(None, {"x": x.numpy()})
    return [torch.from_numpy(result) for result in found]


def test_constants_inside_an_operator_do_not_stop_a_compilation(rtx_settings: CompileSettings) -> None:
    def cleaned(x: torch.Tensor) -> torch.Tensor:
        return x.nan_to_num(1.0, 2.0, 3.0) * 2 + 1

    x = torch.tensor([0.5, float("nan"), float("inf"), -float("inf")])
    (found,) = results(divided(cleaned, rtx_settings, x), x)
    torch.testing.assert_close(found, cleaned(x))


def test_one_hot_rows_are_pytorchs(rtx_settings: CompileSettings) -> None:
    def rows(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(x, 5).float() * 2

    x = torch.tensor([[4, 0], [2, 2]])
    (found,) = results(divided(rows, rtx_settings, x), x)
    torch.testing.assert_close(found, rows(x))


def test_sizes_below_zero_are_rounded_down(rtx_settings: CompileSettings) -> None:
    def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        size = x.size(0)
        return x * -(-size // 2) - 1, x + (size - 5) // 3

    batch = torch.export.Dim("batch", min=1, max=8)
    program = divided(halves, rtx_settings, torch.ones(3, 2), dynamic_shapes=({0: batch},))
    for size in (1, 3, 4, 8):
        x = torch.randn(size, 2)
        torch.testing.assert_close(results(program, x), list(halves(x)))


@pytest.mark.parametrize("kind", [nn.GRUCell, nn.LSTMCell])
def test_sizes_stay_dynamic_where_an_operator_is_decomposed(
    kind: Callable[..., nn.Module], rtx_settings: CompileSettings
) -> None:
    cell = kind(4, 5).eval()

    def step(x: torch.Tensor) -> list[torch.Tensor]:
        return [state * 2 for state in torch.utils._pytree.tree_leaves(cell(x))]

    batch = torch.export.Dim("batch", min=1, max=8)
    with torch.no_grad():
        program = divided(step, rtx_settings, torch.randn(3, 4), dynamic_shapes=({0: batch},))
        for size in (1, 3, 8):
            x = torch.randn(size, 4)
            torch.testing.assert_close(results(program, x), step(x))


@pytest.mark.parametrize("softmax", [torch.softmax, torch.log_softmax])
def test_a_softmax_is_computed_in_the_type_that_it_names(
    softmax: Callable[..., torch.Tensor], rtx_settings: CompileSettings
) -> None:
    def wide(x: torch.Tensor) -> torch.Tensor:
        return softmax(x, -1, dtype=torch.float32) * 2

    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).half()
    (found,) = results(divided(wide, rtx_settings, x), x)
    torch.testing.assert_close(found, wide(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.int32])
def test_a_mean_is_computed_in_the_type_that_it_names(
    dtype: torch.dtype, rtx_settings: CompileSettings
) -> None:
    def mean(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        wide = x.mean(1, dtype=torch.float32)
        return wide * 2, x.mean((0, 1), keepdim=True, dtype=torch.float32) + 1

    x = torch.tensor([[1, 2], [60000, 60001]]).to(dtype)
    torch.testing.assert_close(results(divided(mean, rtx_settings, x), x), list(mean(x)))


@pytest.mark.parametrize("alpha", [1, 0.5])
@pytest.mark.parametrize(
    ("product", "shape"), [(torch.addmm, (4, 4)), (torch.baddbmm, (2, 4, 4))], ids=["addmm", "baddbmm"]
)
def test_nothing_is_added_to_a_product_with_beta_zero(
    product: Callable[..., torch.Tensor], shape: tuple[int, ...], alpha: float, rtx_settings: CompileSettings
) -> None:
    def scores(x: torch.Tensor) -> torch.Tensor:
        return product(x * float("nan"), x, x.mT, beta=0, alpha=alpha) + 1

    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (found,) = results(divided(scores, rtx_settings, x), x)
    torch.testing.assert_close(found, scores(x))


def test_only_dimensions_of_size_one_are_squeezed(rtx_settings: CompileSettings) -> None:
    def squeezed(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.squeeze(1) * 2, x.squeeze((1, 2)) * 3

    x = torch.randn(2, 3, 1)
    torch.testing.assert_close(results(divided(squeezed, rtx_settings, x), x), list(squeezed(x)))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (
            lambda x: x.scatter_reduce(0, torch.zeros(3, 4, dtype=torch.long), x * 2, "mean") * 2,
            "ONNX has no mean of the values that it scatters",
        ),
        (
            lambda x: x.scatter(0, torch.tensor([[1, 0]]), x * 2) * 2,
            "ONNX scatters only as many values as there are indices",
        ),
        (
            lambda x: nn.functional.avg_pool2d(x[None], 2, divisor_override=3) * 2,
            "ONNX has no average with a divisor of its own",
        ),
    ],
)
def test_what_onnx_does_otherwise_stays_in_pytorch(
    function: Callable[..., Any], reason: str, rtx_settings: CompileSettings
) -> None:
    program = divided(lambda x: function(torch.relu(x * 3) + 1), rtx_settings, torch.randn(3, 4))
    refused = [
        step
        for step in program.partition.torch_operators
        if step.operator.startswith(("aten.scatter", "aten.avg"))
    ]
    assert [step.reason for step in refused] == [reason]


@pytest.mark.parametrize("pool", [nn.functional.adaptive_avg_pool2d, nn.functional.adaptive_max_pool2d])
def test_pooling_to_a_size_from_sizes_that_vary_stays_in_pytorch(
    pool: Callable[..., torch.Tensor], rtx_settings: CompileSettings
) -> None:
    def pooled(x: torch.Tensor) -> torch.Tensor:
        return pool(torch.relu(x * 3) + 1, 2) * 2

    shapes = ({2: 2 * torch.export.Dim("half", min=2, max=8)},)
    program = divided(pooled, rtx_settings, torch.randn(2, 3, 6, 8), dynamic_shapes=shapes)
    (refused,) = [step for step in program.partition.torch_operators if "pool" in step.operator]
    assert "a size that does not vary" in refused.reason
