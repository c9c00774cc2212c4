"""Networks that people deploy: a real TensorRT-RTX plan of each, and the same on the reference backend."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from tests.compiler.plan_contents import io_tensors, tensor_types
from trt_rt import Engine, IOTensor, ProfileRange, TRTModule, build
from trt_rt.backend import Backend
from trt_rt.compiler import build_plan, export_program
from trt_rt.compiler.precision import cast_module
from trt_rt.reference.dtypes import TENSORRT_DTYPES

pytest.importorskip("transformers", reason="the package transformers is not installed")

from tests.compiler.networks import LARGEST_BATCH, NETWORKS

EXAMPLE_BATCH = 3
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NAMES_IN_PLANS = {"fp32": "float", "fp16": "half", "bf16": "bf16"}

CASES = [
    pytest.param(name, precision, id=f"{name}-{precision}")
    for name, network in NETWORKS.items()
    for precision in ("fp32", network.low_precision)
]


def inputs_of(name: str, batch: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(batch)
        return NETWORKS[name].inputs(batch)


@functools.cache
def exported(name: str, precision: str) -> torch.export.ExportedProgram:
    """The network in a precision; exported once for all backends, as that takes most of the time."""
    network = NETWORKS[name]
    return export_program(
        cast_module(network.make(), precision),
        (),
        inputs_of(name, EXAMPLE_BATCH),
        dynamic_shapes=network.dynamic_shapes,
    )


@functools.cache
def in_pytorch(name: str, precision: str) -> torch.nn.Module:
    return NETWORKS[name].make().to(DTYPES[precision])


def as_tuple(outputs: Any) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def eager(name: str, precision: str, batch: int) -> tuple[torch.Tensor, ...]:
    """What PyTorch computes in a precision, as float32 where it is floating-point."""
    inputs = {
        key: tensor.to(DTYPES[precision]) if tensor.is_floating_point() else tensor
        for key, tensor in inputs_of(name, batch).items()
    }
    with torch.no_grad():
        outputs = as_tuple(in_pytorch(name, precision)(**inputs))
    return tuple(output.float() if output.is_floating_point() else output for output in outputs)


@functools.cache
def expected_io(name: str) -> tuple[IOTensor, ...]:
    """The I/O table that the model asks for, whatever the precision."""
    tensors = []
    for parameter, example in inputs_of(name, EXAMPLE_BATCH).items():
        dims = NETWORKS[name].dynamic_shapes[parameter]
        shape = tuple(-1 if axis in dims else size for axis, size in enumerate(example.shape))
        limits = ProfileRange(
            tuple(dims[axis].min if axis in dims else size for axis, size in enumerate(example.shape)),
            tuple(example.shape),
            tuple(dims[axis].max if axis in dims else size for axis, size in enumerate(example.shape)),
        )
        tensors.append(IOTensor(parameter, "input", example.dtype, shape, profiles=(limits,)))
    # What is dynamic differs between two batches of different size.
    small, large = eager(name, "fp32", 2), eager(name, "fp32", LARGEST_BATCH)
    for number, (one, other) in enumerate(zip(small, large, strict=True)):
        shape = tuple(size if size == same else -1 for size, same in zip(one.shape, other.shape, strict=True))
        tensors.append(IOTensor(f"output{number}", "output", one.dtype, shape))
    return tuple(tensors)


def test_there_are_twelve_networks_at_least() -> None:
    assert len(NETWORKS) >= 12


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_a_real_plan_has_the_io_of_the_model(rtx: Backend, name: str, precision: str) -> None:
    built = build_plan(exported(name, precision), backend=rtx)
    assert built.plan.startswith(b"vtrt")
    expected = expected_io(name)
    assert built.io == expected
    # And so it stands in the plan itself.
    in_plan = {
        (tensor.name, tensor.mode, TENSORRT_DTYPES[tensor.dtype].name, tensor.shape) for tensor in expected
    }
    assert set(io_tensors(built.plan, rtx.api)) == in_plan
    assert NAMES_IN_PLANS[precision] in tensor_types(built.plan)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_the_reference_computes_what_pytorch_does(name: str, precision: str) -> None:
    plan = build(exported(name, precision), backend="reference")
    with Engine.from_bytes(plan, device="cpu") as engine:
        assert (*engine.inputs, *engine.outputs) == expected_io(name)
        module = TRTModule(engine)
        for batch in (1, EXAMPLE_BATCH, LARGEST_BATCH):
            outputs = as_tuple(module(*inputs_of(name, batch).values()))
            torch.testing.assert_close(outputs, eager(name, precision, batch))
