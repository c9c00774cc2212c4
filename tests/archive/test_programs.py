"""Compiled programs are saved as they are: the loaded one runs the same code, so that it costs the same."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import trt_rt
from tests.program.programs import PROGRAMS
from trt_rt import ArchiveError, Program
from trt_rt.runtime import get_cudagraphs_mode, set_cudagraphs_mode

_NOT_IN_FILES = {"nested arguments": "and a file can hold tuples"}


def _compiled(name: str) -> Program:
    torch.manual_seed(0)
    hard = PROGRAMS[name]
    (args, kwargs), *_ = hard.calls()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # programs without an engine
        return trt_rt.compile(
            hard.make().eval(),
            inputs=list(args),
            kwarg_inputs=kwargs or None,
            dynamic_shapes=hard.dynamic_shapes,
            backend="reference",
            cache_dir=None,
        )


def _without_numbers(code: str) -> str:
    """Code without the numbers that keep names apart, and with tuples for lists."""
    return re.sub(r"_\d+\b", "", code).replace("[", "(").replace("]", ")").replace(",)", ")")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_loaded_program_runs_the_same_code(name: str, tmp_path: Path) -> None:
    program = _compiled(name)
    path = tmp_path / "program.pt2"
    if name in _NOT_IN_FILES:
        with pytest.raises(ArchiveError, match=_NOT_IN_FILES[name]):
            trt_rt.save(program, path)
        return
    trt_rt.save(program, path)
    loaded = trt_rt.load(path)
    assert _without_numbers(loaded.code) == _without_numbers(program.code)
    assert loaded.computes_outside_engines == program.computes_outside_engines
    assert str(loaded.signature) == str(program.signature)
    assert loaded.partition.summary().partition(";")[0] == program.partition.summary().partition(";")[0]
    for args, kwargs in PROGRAMS[name].calls():
        results = []
        for called in (program, loaded):
            torch.manual_seed(1)
            given: Any = copy.deepcopy((args, kwargs))
            results.append((called(*given[0], **given[1]), given))
        torch.testing.assert_close(results[1], results[0], equal_nan=True)


def test_a_loaded_program_is_saved_again(tmp_path: Path) -> None:
    trt_rt.save(_compiled("KV cache"), tmp_path / "first.pt2")
    first = trt_rt.load(tmp_path / "first.pt2")
    trt_rt.save(first, tmp_path / "second.pt2")
    assert trt_rt.load(tmp_path / "second.pt2").code == first.code


def test_controls_work_on_a_loaded_program(tmp_path: Path) -> None:
    trt_rt.save(_compiled("sizes"), tmp_path / "a.pt2")
    program = trt_rt.load(tmp_path / "a.pt2")
    (args, kwargs), *_ = PROGRAMS["sizes"].calls()
    expected = program(*args, **kwargs)
    before = get_cudagraphs_mode()
    set_cudagraphs_mode(True)
    try:
        torch.testing.assert_close(program(*args, **kwargs), expected)
    finally:
        set_cudagraphs_mode(before)
    with trt_rt.enable_profiling(program) as profile:
        program(*args, **kwargs)
    assert profile is not None
    torch.testing.assert_close(copy.deepcopy(program)(*args, **kwargs), expected)


def test_the_exported_form_is_a_program_of_pytorch() -> None:
    program = _compiled("KV cache")
    exported = program.exported()
    (args, kwargs), *_ = PROGRAMS["KV cache"].calls()
    expected = copy.deepcopy(program)(*args, **kwargs)
    torch.testing.assert_close(exported.module(check_guards=False)(*args, **kwargs), expected)
    assert "engine_0.plan" in exported.state_dict


@pytest.mark.filterwarnings(r"ignore:.*torch\.jit\..* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("form", ["exported", "traced"])
def test_casts_and_requests_for_gradients_leave_plans_alone(form: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
    x = torch.randn(2, 4)
    program = trt_rt.compile(model, inputs=[x], backend="reference", cache_dir=None)
    module: Any = (
        program.exported().module(check_guards=False)
        if form == "exported"
        else torch.jit.trace(program, (x,), check_trace=False)
    )
    plans = {
        name: tensor.clone() for name, tensor in module.state_dict().items() if tensor.dtype is torch.uint8
    }
    assert len(plans) == (form == "exported")  # a trace has it as a constant
    module.half().requires_grad_().to("cpu").to(torch.float64)
    for name, plan in plans.items():
        assert torch.equal(module.state_dict()[name], plan)
    torch.testing.assert_close(module(x), model(x).detach())
