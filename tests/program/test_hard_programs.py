"""Hard programs compute what eager PyTorch computes, call after call, and change what it changes."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

import trt_rt
from tests.program.programs import PROGRAMS


@functools.cache
def program_of(name: str) -> tuple[torch.nn.Module, trt_rt.Program]:
    """The model, and the program that is made of it; once for all tests, as this takes a second."""
    case = PROGRAMS[name]
    torch.manual_seed(0)
    model = case.make().train(name == "train-mode batch norm")
    args, kwargs = copy.deepcopy(case.calls()[0])
    program = trt_rt.compile(
        model,
        inputs=args,
        kwarg_inputs=kwargs,
        dynamic_shapes=case.dynamic_shapes,
        backend="reference",
    )
    return model, program


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hard_program_is_right(name: str) -> None:
    case = PROGRAMS[name]
    model, program = program_of(name)
    for args, kwargs in case.calls():
        own_args, own_kwargs = copy.deepcopy((args, kwargs))
        with torch.no_grad():
            wanted = model(*args, **kwargs)
        found = program(*own_args, **own_kwargs)
        assert type(found) is type(wanted)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close((own_args, own_kwargs), (args, kwargs))  # what it writes into arguments
    state = model.state_dict()
    for key, value in program.weights.state_dict().items():
        torch.testing.assert_close(value, state[key])


@pytest.mark.parametrize("name", PROGRAMS)
def test_only_what_must_stays_in_pytorch(name: str) -> None:
    case = PROGRAMS[name]
    partition = program_of(name)[1].partition
    computing = [step for step in partition.torch_operators if not step.is_glue or "copy_" in step.operator]
    names = {step.operator.removeprefix("aten.").partition(".")[0] for step in computing}
    assert names == set(case.in_pytorch), str(partition)
    assert len(partition.engines) == case.engines, str(partition)
    assert all(step.reason for step in partition.torch_operators)
