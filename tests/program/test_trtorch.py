"""``trt_rt.compile(script_module, settings)``, as TRTorch's users know it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import trt_rt
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt import CompileError
from trt_rt.compiled import Partition
from trt_rt.compiled.torchscript import torchscript_calls, torchscript_module

pytestmark = pytest.mark.filterwarnings(r"ignore:.*torch\.jit\..* is deprecated:DeprecationWarning")


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.second = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)).mean((2, 3)))


class Spectrum(Network):
    """PyTorch runs the Fourier transform, between two engines."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x)).mean((2, 3))
        return self.second(torch.abs(torch.fft.fft(hidden)) * x.size(0) + x.size(2))


SETTINGS: dict[str, Any] = {
    "input_shapes": [{"min": [1, 3, 16, 16], "opt": [2, 3, 32, 32], "max": [8, 3, 64, 64]}]
}
OPTIONS: dict[str, Any] = {"backend": "reference", "cache_dir": None, "min_block_size": 1}
SHAPES = ((1, 3, 16, 16), (2, 3, 32, 32), (8, 3, 64, 64), (3, 3, 17, 40))


def script(kind: type[torch.nn.Module] = Network) -> torch.jit.ScriptModule:
    with torchscript_calls():
        traced: torch.jit.ScriptModule = torch.jit.trace(kind().eval(), (torch.zeros(2, 3, 32, 32),))
        return traced


@pytest.mark.parametrize("kind", [Network, Spectrum])
def test_a_module_and_its_file_in_another_process(kind: type[torch.nn.Module], tmp_path: Path) -> None:
    compiled = trt_rt.compile(script(kind), SETTINGS, **OPTIONS)
    assert isinstance(compiled, torch.jit.ScriptModule)
    network = kind().eval()
    inputs = [torch.randn(shape) for shape in SHAPES]
    for x in inputs:
        torch.testing.assert_close(compiled(x), network(x))
    torch.jit.save(compiled, str(tmp_path / "model.ts"))
    torch.save(inputs, tmp_path / "inputs")
    code = (
        "import sys, torch, trt_rt\n"
        "model = torch.jit.load(sys.argv[1] + '/model.ts')\n"
        "inputs = torch.load(sys.argv[1] + '/inputs', weights_only=True)\n"
        "torch.save([model(x) for x in inputs], sys.argv[1] + '/results')\n"
    )
    root = str(Path(trt_rt.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
        env={"PYTHONPATH": root},
    )
    for result, x in zip(torch.load(tmp_path / "results", weights_only=True), inputs, strict=True):
        torch.testing.assert_close(result, network(x))


def test_half_precision() -> None:
    module = script()
    compiled = trt_rt.compile(module, {**SETTINGS, "op_precision": torch.half}, **OPTIONS)
    for shape in SHAPES:
        x = torch.randn(shape)
        result = compiled(x.half())
        assert result.dtype is torch.float16
        torch.testing.assert_close(result.float(), module(x), atol=5e-3, rtol=5e-3)
    assert next(module.parameters()).dtype is torch.float32, "the module is not changed"


def test_a_fixed_shape() -> None:
    compiled = trt_rt.compile(script(), {"input_shapes": [[1, 3, 32, 32]]}, **OPTIONS)
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(compiled(x), Network().eval()(x))
    with pytest.raises(Exception, match="shape"):
        compiled(torch.randn(2, 3, 32, 32))


def test_it_does_not_warn() -> None:
    """Warnings are errors here; those of torch.jit's age are kept from trt_rt's own calls only."""
    module = script()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trt_rt.compile(module, SETTINGS, **OPTIONS)
        with pytest.raises(DeprecationWarning):
            torch.jit.script(torch.nn.ReLU())


def test_a_dry_run() -> None:
    partition = trt_rt.compile(script(Spectrum), SETTINGS, dryrun=True, **OPTIONS)
    assert isinstance(partition, Partition)
    assert len(partition.engines) == 2


def test_operators_that_pytorch_must_run() -> None:
    settings = {**SETTINGS, "torch_fallback": {"enabled": True, "forced_fallback_operators": ["aten::relu"]}}
    partition = trt_rt.compile(script(), settings, dryrun=True, **OPTIONS)
    assert isinstance(partition, Partition)
    assert [step.operator for step in partition.torch_operators] == ["aten.relu.default"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "input_shapes"),
        ({"input_shapes": []}, "input_shapes"),
        ({"input_shapes": [{"min": [1], "max": [2]}]}, r"input_shapes\[0\] has \['max', 'min'\]"),
        ({"input_shapes": [{"min": [3], "opt": [2], "max": [4]}]}, "breaks min <= opt <= max: 3, 2, 4"),
        ({"input_shapes": [["a"]]}, "is no shape"),
        ({"input_shapes": [3]}, "is no shape"),
        ({**SETTINGS, "op_precision": torch.int8}, "quantize and dequantize operators.*torchao"),
        ({**SETTINGS, "op_precision": torch.bfloat16}, "torch.float and torch.half are possible"),
        ({**SETTINGS, "op_precison": torch.half}, "did you mean 'op_precision'"),
        ({**SETTINGS, "device": {"device_type": "DLA"}}, "DLA"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        trt_rt.compile(script(), settings, **OPTIONS)


def test_a_python_module_is_refused() -> None:
    with pytest.raises(CompileError, match=r"inputs=\[\.\.\.\]"):
        trt_rt.compile(Network(), SETTINGS, **OPTIONS)  # type: ignore[call-overload]


def test_settings_without_effect_are_named() -> None:
    with pytest.warns(UserWarning, match="max_batch_size, strict_types have no effect"):
        trt_rt.compile(script(), {**SETTINGS, "strict_types": True, "max_batch_size": 8}, **OPTIONS)


def test_control_flow_that_cannot_be_converted() -> None:
    class Loop(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            while bool(x.sum() < 10):
                x = x + 1
            return x

    with torchscript_calls():
        module = torch.jit.script(Loop())
    with pytest.raises(CompileError, match=r"Loop: .*Loop.*[Cc]ompile the\s+Python model"):
        trt_rt.compile(module, {"input_shapes": [[2, 2]]}, **OPTIONS)


class Results(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        values, order = torch.sort(x, dim=0, descending=True)
        size = x.shape[0] * 2 + y.shape[0]
        return {
            "sorted": (values, [order]),
            "filled": torch.full((size, 2), float("-inf"), dtype=torch.float64),
            "none": torch.clamp(x, min=None, max=0.5).to(torch.float16),
        }


def test_what_a_program_may_return_and_call() -> None:
    dim = torch.export.Dim("n", min=2, max=50)
    example = (torch.randn(3, 4), torch.randn(5, 4))
    exported = torch.export.export(
        Results(), example, dynamic_shapes=({0: dim}, {0: torch.export.Dim("m", min=2, max=50)})
    )
    module = torchscript_module(exported)
    for inputs in (example, (torch.randn(7, 4), torch.randn(2, 4))):
        torch.testing.assert_close(module(*inputs), Results()(*inputs))


@pytest.mark.parametrize(
    ("flat_results", "expected"), [(False, {"both": [3.0, 6.0], "sum": 3.0}), (True, (3.0, 6.0, 3.0))]
)
def test_results_are_nested_as_the_program_s_or_flat(flat_results: bool, expected: Any) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))
            self.register_buffer("factor", torch.full((2,), 3.0).requires_grad_())

        def forward(self, x: torch.Tensor) -> Any:
            total, product = x + self.weight, x * self.factor
            return {"both": [total, product], "sum": total}

    model = Model()
    module = torchscript_module(torch.export.export(model, (torch.zeros(2),)), flat_results=flat_results)
    results = module(torch.full((2,), 2.0))
    assert torch.utils._pytree.tree_map(lambda value: float(value[0]), results) == expected
    assert not any(value.requires_grad for value in torch.utils._pytree.tree_leaves(results))
    assert [name for name, _ in module.named_parameters()] == ["held_weight"]
    assert model.weight.requires_grad
    assert model.factor.requires_grad
