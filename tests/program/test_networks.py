"""The networks that people deploy as programs: whole and split, built by TensorRT-RTX and the reference."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

import trt_rt
from trt_rt.program.settings import CompileSettings
from trt_rt.program.stages import assemble_program, build_program, divide_program, model_graph
from trt_rt.program.support import Exclusions

pytest.importorskip("transformers", reason="the package transformers is not installed")

from tests.compiler.networks import LARGEST_BATCH, NETWORKS
from trt_rt.compiler import export_program

pytestmark = pytest.mark.slow
EXAMPLE_BATCH = 3

SPLIT_AT = {
    "BERT": "aten.gelu",
    "GPT-2": "aten.tanh",
    "U-Net": "aten.conv_transpose2d",
    "detector with TopK": "aten.sigmoid",
    "mask and where": "aten.softmax",
    "recommender": "aten.bmm",
    "ResNet": "aten.max_pool2d",
}
"""Operators that some networks leave to PyTorch here, so that there are parts before, between and after."""


def inputs_of(name: str, batch: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(batch)
        return NETWORKS[name].inputs(batch)


@functools.cache
def exported(name: str) -> torch.export.ExportedProgram:
    network = NETWORKS[name]
    return export_program(
        network.make(), (), inputs_of(name, EXAMPLE_BATCH), dynamic_shapes=network.dynamic_shapes
    )


@functools.cache
def in_pytorch(name: str) -> torch.nn.Module:
    return NETWORKS[name].make()


def check(name: str, program: torch.nn.Module) -> None:
    for batch in (1, LARGEST_BATCH):
        inputs = inputs_of(name, batch)
        with torch.no_grad():
            wanted: Any = in_pytorch(name)(**inputs)
        torch.testing.assert_close(program(**inputs), wanted)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_one_engine_and_built_by_tensorrt_rtx(rtx_settings: CompileSettings, name: str) -> None:
    graph = model_graph(exported(name))
    plans = build_program(divide_program(graph, rtx_settings), rtx_settings)
    assert plans.is_complete
    built = assemble_program(graph, plans, rtx_settings)
    assert [step.operator for step in built.partition.torch_operators if not step.is_glue] == []
    assert [plan[:4] for plan in built.plans.values()] == [b"vtrt"]


@pytest.mark.parametrize("name", SPLIT_AT)
def test_a_network_that_is_split_is_right(name: str) -> None:
    program = trt_rt.compile(exported(name), backend="reference", torch_executed_ops=[SPLIT_AT[name]])
    assert len(program.partition.engines) > 1
    check(name, program)


@pytest.mark.parametrize("name", ["GPT-2", "recommender"])
def test_a_network_that_is_split_is_built_by_tensorrt_rtx(rtx_settings: CompileSettings, name: str) -> None:
    exclusions = Exclusions(operators=frozenset({SPLIT_AT[name]}))
    settings = CompileSettings(**{**vars(rtx_settings), "exclusions": exclusions})
    graph = model_graph(exported(name))
    plans = build_program(divide_program(graph, settings), settings)
    assert plans.is_complete
    assert len(plans.parts) > 1
    assert all(part.plan.startswith(b"vtrt") for part in plans.parts)
