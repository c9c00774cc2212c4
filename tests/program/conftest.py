"""The builder that runs everywhere, for parts that it is to build."""

from __future__ import annotations

import pytest
import torch

from trt_rt.backend import Backend, load
from trt_rt.compiler import BuildOptions
from trt_rt.errors import BackendError
from trt_rt.program.settings import CompileSettings
from trt_rt.program.support import Exclusions


@pytest.fixture(scope="session")
def rtx() -> Backend:
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    pytest.importorskip("onnxscript", reason="the package onnxscript is not installed")
    try:
        return load("tensorrt_rtx")
    except BackendError as error:
        pytest.skip(f"the TensorRT-RTX wheels are not installed: {error}")


@pytest.fixture
def rtx_settings(rtx: Backend) -> CompileSettings:
    """Of a compilation that is built, and not loaded: no GPU is needed."""
    return CompileSettings(
        backend=rtx,
        device=torch.device("cpu"),
        exclusions=Exclusions(),
        options=BuildOptions(),
        min_block_size=3,
        require_full_compilation=False,
        truncate_double=False,
    )
