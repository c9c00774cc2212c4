"""The builder that runs everywhere."""

from __future__ import annotations

import pytest

from trt_rt.backend import Backend, load
from trt_rt.errors import BackendError


@pytest.fixture(scope="session")
def rtx() -> Backend:
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    pytest.importorskip("onnxscript", reason="the package onnxscript is not installed")
    try:
        return load("tensorrt_rtx")
    except BackendError as error:
        pytest.skip(f"the TensorRT-RTX wheels are not installed: {error}")
