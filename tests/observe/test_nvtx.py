"""trt_rt.enable_nvtx: which ranges there are, over a stand-in of the package nvtx."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from tests.reference import plans
from trt_rt import Engine, TRTModule, enable_nvtx
from trt_rt.errors import BackendError, InputError

pytestmark = pytest.mark.skipif(hasattr(torch._C, "_nvtx"), reason="this PyTorch has NVTX of its own")


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is called: a range's name, and "" where one ends."""
    called: list[str] = []
    stand_in = ModuleType("nvtx")
    stand_in.push_range = called.append  # type: ignore[attr-defined]
    stand_in.pop_range = lambda: called.append("")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nvtx", stand_in)
    return called


def test_ranges_around_calls(ranges: list[str], x: torch.Tensor) -> None:
    module = TRTModule(Engine.from_bytes(plans.affine(), name="affine"))
    y = module(x)
    with enable_nvtx(module) as called:
        called(x, out=y)
        assert ranges == [
            f"affine call ({x.shape[0]}x{x.shape[1]})",
            "affine set_tensor_address output0",
            "",
            "affine execute_async_v3",
            "",
            "",
        ] or ranges == [f"affine call ({x.shape[0]}x{x.shape[1]})", "affine execute_async_v3", "", ""]
        ranges.clear()
        with pytest.raises(InputError):
            called(x[0])
        assert ranges[0] == f"affine call ({x.shape[1]})"
        assert len(ranges) == 2 * ranges.count("")
    ranges.clear()
    module(x)
    assert ranges == []


def test_a_machine_without_nvtx(monkeypatch: pytest.MonkeyPatch, x: torch.Tensor) -> None:
    monkeypatch.setitem(sys.modules, "nvtx", None)
    module = TRTModule(plans.affine())
    with pytest.raises(BackendError, match="pip install nvtx"), enable_nvtx(module):
        pytest.fail("the block ran")
    module(x)
    assert module.executor.observer is None
