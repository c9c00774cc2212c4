"""A module over one engine is saved like a program, and loaded as one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim

import trt_rt
from trt_rt.errors import InputError


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return torch.relu(x * 2 + y), torch.cat([x, x]) * 3


@pytest.fixture(scope="module")
def module() -> trt_rt.TRTModule:
    batch = Dim("batch", min=1, max=9)
    plan = trt_rt.build(
        Two().eval(),
        (torch.zeros(3, 4), torch.zeros(3, 4)),
        dynamic_shapes=({0: batch}, {0: batch}),
        backend="reference",
    )
    return trt_rt.TRTModule(plan)


@pytest.mark.parametrize("batch", [1, 4, 9])
def test_results_are_those_of_the_module(module: trt_rt.TRTModule, tmp_path: Path, batch: int) -> None:
    trt_rt.save(module, tmp_path / "module.pt2")
    program = trt_rt.load(tmp_path / "module.pt2")
    args = torch.randn(batch, 4), torch.randn(batch, 4)
    for found, expected in zip(program(*args), module(*args), strict=True):
        assert torch.equal(found, expected)
    (engine,) = program.partition.engines
    assert [tensor.name for tensor in engine.inputs] == list(module.input_binding_names)
    assert program.engine_0.engine.serialize() == module.engine.serialize()


def test_sizes_are_checked_by_the_engine(module: trt_rt.TRTModule, tmp_path: Path) -> None:
    trt_rt.save(module, tmp_path / "module.pt2")
    program = trt_rt.load(tmp_path / "module.pt2")
    with pytest.raises(InputError, match=r"\[1, 4\] to \[9, 4\]"):
        program(torch.zeros(10, 4), torch.zeros(10, 4))


def test_torch_export_opens_the_file(module: trt_rt.TRTModule, tmp_path: Path) -> None:
    trt_rt.save(module, tmp_path / "module.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own, of its own code
        opened = torch.export.load(tmp_path / "module.pt2").module(check_guards=False)
    args = torch.randn(5, 4), torch.randn(5, 4)
    torch.testing.assert_close(opened(*args), module(*args))


def test_a_backend_of_one_process_is_refused(module: trt_rt.TRTModule, tmp_path: Path) -> None:
    import trt_rt.reference

    own = trt_rt.Backend("own", trt_rt.reference, runs_on_cpu=True)
    path = tmp_path / "module.pt2"
    path.write_bytes(b"old")
    with pytest.raises(trt_rt.BackendError, match="'own', which only this process knows"):
        trt_rt.save(trt_rt.TRTModule(module.engine.serialize(), backend=own), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
