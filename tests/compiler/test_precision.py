"""Precision: a module is cast, what is exported cannot be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.compiler.models import DYNAMIC, EXAMPLE, Scale, exported
from tests.compiler.plan_contents import tensor_types
from trt_rt import CompileError, build
from trt_rt.backend import Backend
from trt_rt.compiler import BuildOptions
from trt_rt.compiler.precision import cast_module, weak_typing_flag


class Mixed(torch.nn.Module):
    """Returns a record of floating-point and other outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale()
        self.register_buffer("steps", torch.arange(4))

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        scaled = self.scale(x)
        return {"scaled": scaled, "steps": self.steps, "more": [scaled.argmax(), scaled.dtype]}


def test_a_cast_module_computes_in_the_precision_and_is_called_as_before() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 1.0 / 3.0]])
    found = cast_module(Mixed(), "fp16")(x)
    assert found["scaled"].dtype == torch.float32
    torch.testing.assert_close(found["scaled"], (x.half() * 2).float(), rtol=0, atol=0)
    assert found["scaled"][0, 3] != x[0, 3] * 2
    assert found["steps"].dtype == torch.int64
    assert found["more"] == [2, torch.float16]


def test_the_module_that_is_given_stays_as_it_is() -> None:
    module = Scale()
    cast = cast_module(module, "bf16")
    assert module.weight.dtype == torch.float32
    assert cast.weight.dtype == torch.bfloat16
    assert module(EXAMPLE[0]).dtype == torch.float32


@pytest.mark.parametrize("precision", ["strong", "fp16"])
def test_a_module_that_has_the_precision_is_not_copied(precision: str) -> None:
    module = Scale().half()
    assert cast_module(module, precision) is module


def test_half_precision_can_be_widened() -> None:
    outputs = cast_module(Scale().half(), "fp32")(EXAMPLE[0].half())
    assert outputs.dtype == torch.float16


def test_the_real_builder_gets_the_precision(rtx: Backend) -> None:
    for precision, name in {"strong": "float", "fp16": "half", "bf16": "bf16"}.items():
        module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4)).eval()
        plan = build(module, EXAMPLE, backend=rtx, precision=precision)  # type: ignore[arg-type]
        floats = tensor_types(plan) & {"float", "half", "bf16"}
        assert floats == {"float", name}  # I/O tensors stay float


@pytest.mark.parametrize("backend", ["tensorrt_rtx", "reference"])
def test_what_is_exported_cannot_be_cast(rtx: Backend, backend: str) -> None:
    with pytest.raises(
        CompileError, match=rf"'fp16': ExportedProgram computes in float32, and {backend} .*Give"
    ):
        build(exported(), backend=backend, precision="fp16")


def test_what_is_exported_in_the_precision_is_built(rtx: Backend) -> None:
    half = torch.export.export(Scale().half().eval(), (EXAMPLE[0].half(),), dynamic_shapes=DYNAMIC)
    assert build(half, backend=rtx, precision="fp16").startswith(b"vtrt")
    assert build(exported(), backend=rtx, precision="fp32").startswith(b"vtrt")


def backend_of_tensorrt_10() -> Any:
    """What the decision looks at: the builder flags that TensorRT 10 has and TensorRT-RTX has not."""
    flags = SimpleNamespace(FP16="the flag", BF16="the other flag")
    return SimpleNamespace(name="tensorrt", version="10.16", api=SimpleNamespace(BuilderFlag=flags))


def test_a_builder_with_weak_typing_gets_its_flag_for_what_is_exported() -> None:
    float32 = {torch.float32}
    backend = backend_of_tensorrt_10()
    for precision, flag in {
        "fp16": "the flag",
        "bf16": "the other flag",
        "fp32": None,
        "strong": None,
    }.items():
        options = BuildOptions(precision=precision)  # type: ignore[arg-type]
        assert weak_typing_flag(backend, options, float32, "a model") == flag
    with pytest.raises(CompileError, match="weight_streaming=True needs a strongly typed network"):
        weak_typing_flag(backend, BuildOptions(precision="fp16", weight_streaming=True), float32, "a model")
