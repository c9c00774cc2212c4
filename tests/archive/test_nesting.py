"""Arguments and results in classes are refused when a program is saved, with what to do instead."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import trt_rt
from trt_rt.errors import ArchiveError


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclasses.dataclass
class Scores:
    values: torch.Tensor


def _register() -> None:
    if Scores not in torch.utils._pytree.SUPPORTED_NODES:
        torch.export.register_dataclass(Scores, serialized_type_name="tests.archive.Scores")


class ReturnsPair(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return {"pairs": [Pair(x + 1, x * 2)]}


class TakesPair(torch.nn.Module):
    def forward(self, pair: Pair) -> torch.Tensor:
        return pair.first + pair.second


class ReturnsScores(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return Scores(torch.relu(x))


def _refused(model: torch.nn.Module, args: tuple[Any, ...], path: Path, message: str) -> None:
    program = trt_rt.compile(model.eval(), inputs=list(args), backend="reference", cache_dir=None)
    for saved in (program, program.exported()):
        path.write_bytes(b"old")
        with pytest.raises(ArchiveError, match=message):
            trt_rt.save(saved, path)
        assert path.read_bytes() == b"old"
        assert list(path.parent.iterdir()) == [path]


def test_a_named_tuple_is_refused(tmp_path: Path) -> None:
    x = torch.ones(2)
    _refused(ReturnsPair(), (x,), tmp_path / "a.pt2", "returns results in a Pair, and a file can hold tuples")
    _refused(TakesPair(), (Pair(x, x),), tmp_path / "a.pt2", "takes arguments in a Pair")


def test_a_dataclass_is_refused(tmp_path: Path) -> None:
    _register()
    _refused(ReturnsScores(), (torch.ones(2),), tmp_path / "a.pt2", "returns results in a Scores")


def test_the_outputs_of_transformers_are_refused(tmp_path: Path) -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs", reason="transformers is not installed")

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return outputs.BaseModelOutput(last_hidden_state=torch.relu(x))

    _refused(Model(), (torch.ones(2),), tmp_path / "a.pt2", "BaseModelOutput.*return_dict=False")


def test_an_ordered_dict_comes_back_as_a_dict_with_its_order(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return OrderedDict(second=x + 1, first=(x * 2, None))

    program = trt_rt.compile(Model().eval(), inputs=[torch.ones(2)], backend="reference", cache_dir=None)
    trt_rt.save(program, tmp_path / "a.pt2")
    found, expected = trt_rt.load(tmp_path / "a.pt2")(torch.ones(2)), program(torch.ones(2))
    assert list(found) == list(expected) == ["second", "first"]
    assert type(found) is type(expected)
    torch.testing.assert_close(found, expected)
