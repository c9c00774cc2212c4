"""The description of an engine in a graph."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from trt_rt.errors import InputValueError, PlanError
from trt_rt.operator import EngineMeta, TensorMeta

META = EngineMeta(
    backend="reference",
    sha256="0f" * 32,
    inputs=(
        TensorMeta("x", torch.float32, ("s0", 8)),
        TensorMeta("length", torch.int64, (1,), is_host=True),
    ),
    outputs=(
        TensorMeta("y", torch.float16, ("2*s0", "?u0", 4)),
        TensorMeta("x_out", torch.float32, ("s0", 8)),
    ),
    aliased_io={"x_out": "x"},
)


def test_the_text() -> None:
    assert META.dumps() == (
        '{"aliased_io":{"x_out":"x"},"backend":"reference","inputs":[{"dtype":"float32","name":"x","shape":'
        '["s0",8]},{"dtype":"int64","location":"host","name":"length","shape":[1]}],"outputs":[{"dtype":'
        '"float16","name":"y","shape":["2*s0","?u0",4]},{"dtype":"float32","name":"x_out","shape":["s0",8]}],'
        f'"sha256":"{"0f" * 32}","version":1}}'
    )


@pytest.mark.parametrize("changes", [{}, {"device": "cuda"}, {"module": "a1"}, {"aliased_io": {}}])
def test_there_and_back(changes: dict[str, Any]) -> None:
    meta = EngineMeta(**{**vars(META), **changes})
    assert EngineMeta.parse(meta.dumps()) == meta


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(META.dumps()), **changes})


def with_input(**changes: Any) -> str:
    first, second = json.loads(META.dumps())["inputs"]
    return changed(inputs=[{**first, **changes}, second])


def with_output_size(size: Any) -> str:
    first, second = json.loads(META.dumps())["outputs"]
    return changed(outputs=[{**first, "shape": [size]}, second])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        META.dumps()[:-1],
        changed(more=1),
        changed(backend=None),
        changed(backend=3),
        changed(sha256="0f"),
        changed(sha256="ZZ" * 32),
        changed(version="1"),
        changed(version=True),
        changed(version=0),
        changed(version=-1),
        changed(inputs={}),
        changed(inputs=[1]),
        changed(aliased_io={"z": "x"}),
        changed(aliased_io={"y": "z"}),
        changed(aliased_io={"y": []}),
        changed(device="meta"),
        changed(module=1),
        with_input(dtype="float33"),
        with_input(dtype="Tensor"),
        with_input(dtype="qint8"),
        with_input(dtype="quint4x2"),
        with_input(dtype="bits8"),
        with_input(name="length"),
        with_input(name=1),
        with_input(location="disk"),
        with_input(other=1),
        with_input(shape=["2*s0"]),
        with_input(shape=["?u0"]),
        with_input(shape=[-1]),
        with_input(shape=[1.5]),
        with_input(shape=[True]),
        with_input(shape=[2**63]),
        with_input(shape=[1] * 9),
        with_input(shape="s0"),
        with_output_size("s1"),
        with_output_size("2 ** s0"),
        with_output_size("?2*s0"),
        with_output_size(None),
    ],
)
def test_a_text_that_is_not_valid_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match=r"not valid|is no size"):
        EngineMeta.parse(text)


def test_a_later_version_is_refused() -> None:
    with pytest.raises(PlanError, match="version 2; this trt_rt reads version 1"):
        EngineMeta.parse(changed(version=2))


def test_every_cut_is_refused() -> None:
    text = META.dumps()
    for length in range(len(text)):
        with pytest.raises(PlanError):
            EngineMeta.parse(text[:length])


def test_sizes_of_symbols() -> None:
    meta = EngineMeta(
        "reference",
        "0f" * 32,
        (TensorMeta("a", torch.float32, ("n", 3)), TensorMeta("b", torch.float32, ("n", "m"))),
        (),
    )
    assert meta.bind_symbols([(5, 3), (5, 2)]) == {"n": 5, "m": 2}
    with pytest.raises(InputValueError, match=r"'b' has the shape \[n, m\]; got \[6, 2\]"):
        meta.bind_symbols([(5, 3), (6, 2)])
    with pytest.raises(InputValueError, match="'a'"):
        meta.bind_symbols([(5, 4), (5, 2)])
    with pytest.raises(InputValueError, match="'a'"):
        meta.bind_symbols([(5,), (5, 2)])
    with pytest.raises(InputValueError, match="takes 2 inputs"):
        meta.bind_symbols([(5, 3)])
