"""Hard programs compute what eager PyTorch computes, call after call, and change what it changes."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

import trt_rt
from tests.program.programs import PROGRAMS
from trt_rt.program import pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


def compiled(name: str, folder: Path) -> tuple[torch.nn.Module, trt_rt.Program]:
    """The model, and the program that is made of it."""
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
        cache_dir=folder,
    )
    return model, program


@functools.cache
def program_of(name: str, folder: Path) -> tuple[torch.nn.Module, trt_rt.Program]:
    """A program that is built; once for all tests, as this takes a second."""
    return compiled(name, folder)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hard_program_is_right(name: str, folder: Path) -> None:
    check(name, *program_of(name, folder))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hard_program_from_the_cache_is_right(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = program_of(name, folder)[1].partition

    def build(*_: object, **__: object) -> None:
        raise AssertionError("it is not in the cache")

    monkeypatch.setattr(pipeline, "build_program", build)
    model, program = compiled(name, folder)
    assert program.partition == partition
    check(name, model, program)


def shared(*values: object) -> list[int]:
    """For each tensor the number of the first that has the same memory."""
    memory = [leaf.untyped_storage()._cdata for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    return [memory.index(each) for each in memory]


def check(name: str, model: torch.nn.Module, program: trt_rt.Program) -> None:
    case = PROGRAMS[name]
    for args, kwargs in case.calls():
        own_args, own_kwargs = copy.deepcopy((args, kwargs))
        with torch.no_grad():
            wanted = model(*args, **kwargs)
        found = program(*own_args, **own_kwargs)
        assert type(found) is type(wanted)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close((own_args, own_kwargs), (args, kwargs))  # what it writes into arguments
        assert shared(found, own_args, own_kwargs) == shared(wanted, args, kwargs)
    state = model.state_dict()
    for key, value in program.weights.state_dict().items():
        torch.testing.assert_close(value, state[key])


@pytest.mark.parametrize("name", PROGRAMS)
def test_only_what_must_stays_in_pytorch(name: str, folder: Path) -> None:
    case = PROGRAMS[name]
    partition = program_of(name, folder)[1].partition
    computing = [step for step in partition.torch_operators if not step.is_glue or "copy_" in step.operator]
    names = {step.operator.removeprefix("aten.").partition(".")[0] for step in computing}
    assert names == set(case.in_pytorch), str(partition)
    assert len(partition.engines) == case.engines, str(partition)
    assert all(step.reason for step in partition.torch_operators)
