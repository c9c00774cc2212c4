"""The builder that runs everywhere."""

from __future__ import annotations

import pytest

from trt_rt.backend import Backend


@pytest.fixture(scope="session")
def rtx(rtx: Backend) -> Backend:
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    pytest.importorskip("onnxscript", reason="the package onnxscript is not installed")
    return rtx
