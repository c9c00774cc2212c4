"""trt_rt.build: what it takes, and what an option does to the plan."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.compiler.models import DYNAMIC, EXAMPLE, Scale, exported
from trt_rt import BackendError, CompileError, ProfileRange, TRTModule, backends, build, refit
from trt_rt.backend import Backend, load
from trt_rt.compiler import BuildOptions, build_plan, export_onnx


def onnx_model() -> Any:
    return export_onnx(exported(), output_names=["output0"])


def as_path(folder: Path) -> Path:
    import onnx

    path = folder / "model.onnx"
    onnx.save(onnx_model(), path, save_as_external_data=True, location="weights", size_threshold=0)
    assert (folder / "weights").stat().st_size
    return path


@pytest.mark.parametrize("kind", ["module", "exported program", "proto", "bytes", "path", "path as str"])
def test_a_model_may_come_in_many_ways(rtx: Backend, kind: str, tmp_path: Path) -> None:
    profiles = [{"x": ((1, 4), (3, 4), (16, 4))}]
    given: dict[str, dict[str, Any]] = {
        "module": {"model": Scale().eval(), "arg_inputs": EXAMPLE, "dynamic_shapes": DYNAMIC},
        "exported program": {"model": exported()},
        "proto": {"model": onnx_model(), "profiles": profiles},
        "bytes": {"model": onnx_model().SerializeToString(), "profiles": profiles},
        "path": {"model": as_path(tmp_path), "profiles": profiles},
        "path as str": {"model": str(as_path(tmp_path)), "profiles": profiles},
    }
    built = build_plan(**given[kind], backend=rtx)
    assert built.plan.startswith(b"vtrt")
    assert [str(tensor) for tensor in built.io] == [
        "'x': torch.float32[?, 4]",
        "'output0': torch.float32[?, 4]",
    ]
    assert built.io[0].profiles == (ProfileRange((1, 4), (3, 4), (16, 4)),)


def test_auto_is_the_best_builder_here() -> None:
    best = next(name for name in ("tensorrt", "tensorrt_rtx", "reference") if backends()[name].can_build)
    assert build_plan(exported()).backend == best


def test_inputs_by_position_and_by_keyword() -> None:
    class Blend(torch.nn.Module):
        def forward(self, x: torch.Tensor, *, share: torch.Tensor) -> torch.Tensor:
            return x * share

    built = build_plan(Blend(), EXAMPLE, kwarg_inputs={"share": torch.ones(1)}, backend="reference")
    assert [tensor.name for tensor in built.io] == ["x", "share", "output0"]
    # Inputs of an engine have an order, which is that of the signature.
    assert TRTModule(built.plan)(torch.ones(3, 4), torch.tensor([0.5])).eq(0.5).all()


def test_names_may_be_given(rtx: Backend) -> None:
    names: dict[str, Any] = {"input_names": ["given"], "output_names": ["scaled"]}
    for backend in (rtx, load("reference")):
        assert [tensor.name for tensor in build_plan(exported(), backend=backend, **names).io] == [
            "given",
            "scaled",
        ]


@pytest.mark.parametrize(
    "options",
    [
        {"workspace_bytes": 1 << 30},
        {"hardware_compatible": True},
        {"weight_streaming": True},
        {"optimization_level": 0},
        {"compute_capabilities": [(8, 6), (12, 0)]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_is_taken_by_the_real_builder(rtx: Backend, options: dict[str, Any]) -> None:
    assert build(exported(), backend=rtx, **options).startswith(b"vtrt")


def test_a_plan_for_more_gpus_is_larger(rtx: Backend) -> None:
    inputs = (torch.ones(8, 64),)
    one, two = (
        build(torch.nn.Linear(64, 64).eval(), inputs, backend=rtx, compute_capabilities=capabilities)
        for capabilities in ([(8, 6)], [(8, 6), (12, 0)])
    )
    assert len(two) > len(one)


def test_weight_streaming_reaches_the_reference() -> None:
    from trt_rt.reference.plan import unpack_plan

    for wanted in (True, False):
        plan = build(exported(), backend="reference", weight_streaming=wanted)
        assert unpack_plan(memoryview(plan))[0].streamable_weights is wanted


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp8"},
        {"workspace_bytes": 0},
        {"optimization_level": 6},
        {"compute_capabilities": [(8,)]},
        {"hardware_compatible": True, "compute_capabilities": [(8, 6)]},
    ],
    ids=["precision", "workspace", "level", "capability", "all GPUs and some"],
)
def test_impossible_and_contradictory_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(CompileError) as caught:
        BuildOptions(**options)
    for name, value in options.items():
        assert name in str(caught.value)
        assert str(value) in str(caught.value)


def test_an_exported_model_has_its_own_inputs() -> None:
    with pytest.raises(CompileError, match="exported program has its own inputs, so arg_inputs and dynamic"):
        build(exported(), EXAMPLE, dynamic_shapes=DYNAMIC)
    with pytest.raises(CompileError, match="ONNX model has its own inputs, so kwarg_inputs and output_names"):
        build(b"", kwarg_inputs={"x": EXAMPLE[0]}, output_names=["y"])


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(CompileError, match="cannot build from a BytesIO: give a torch"):
        build(io.BytesIO())  # type: ignore[arg-type]
    with pytest.raises(CompileError, match="Scale needs example inputs"):
        build(Scale())


def test_backends_that_do_not_build_are_refused(rtx: Backend) -> None:
    with pytest.raises(BackendError, match="'reference' has no ONNX parser"):
        build(b"", backend="reference")
    if backends()["tensorrt_lean"].installed:
        with pytest.raises(BackendError, match="'tensorrt_lean' runs plans and builds none"):
            build(exported(), backend="tensorrt_lean")


def test_a_refittable_plan_of_the_reference_backend_takes_new_weights() -> None:
    network = torch.nn.Linear(4, 3).eval()
    plan = build(network, EXAMPLE_ROW, backend="reference", refittable=True)
    module = TRTModule(plan, device="cpu")
    new = torch.nn.Linear(4, 3).eval()
    refit(module, new.state_dict())
    torch.testing.assert_close(module(*EXAMPLE_ROW), new(*EXAMPLE_ROW).detach())


EXAMPLE_ROW = (torch.ones(2, 4),)


def test_an_option_that_a_tensorrt_lacks_is_named(rtx: Backend) -> None:
    with pytest.raises(CompileError, match=r"\[\(9, 0\)\]: tensorrt_rtx .* does not have this \(but .*SM86"):
        build(exported(), backend=rtx, compute_capabilities=[(9, 0)])


def test_a_refusal_names_the_options_of_the_build(rtx: Backend) -> None:
    with pytest.raises(CompileError, match=r"refused to build .*workspace.*asked for workspace_bytes=1024"):
        build(torch.nn.Linear(64, 64).eval(), (torch.ones(8, 64),), backend=rtx, workspace_bytes=1024)
