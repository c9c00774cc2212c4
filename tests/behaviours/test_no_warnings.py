"""The hot path does not talk."""

from __future__ import annotations

import logging
import warnings
from collections import Counter

import pytest
import torch

from tests.behaviours.modes import MODES, Caller

pytestmark = pytest.mark.behaviour(32)

_INPUTS = [
    pytest.param(lambda x: x, id="plain"),
    pytest.param(lambda x: x.t().contiguous().t(), id="transposed"),
    pytest.param(lambda x: x.clone().requires_grad_() * 1, id="with-history"),
    pytest.param(lambda x: torch._neg_view(x), id="negative"),
    pytest.param(lambda x: torch.nn.Parameter(x), id="parameter"),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind_of_input", _INPUTS)
def test_nothing_is_said_twice(make, mode, kind_of_input, caplog, capfd):
    """Twenty calls give no warning more than once, no log record more than once, and print nothing."""
    case = make("relu")
    caller = Caller(case.module(), mode)
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG, "trt_rt"):
        warnings.simplefilter("always")
        for n in (3, 5) * 10:
            (x,) = (kind_of_input(tensor) for tensor in case.example(n))
            if mode == "bound":
                x = x.detach().resolve_neg().contiguous()
            caller((x,), case.expected(x))
    assert all(count == 1 for count in Counter(str(warning.message) for warning in caught).values())
    logged = Counter(record.getMessage() for record in caplog.records if record.name.startswith("trt_rt"))
    assert all(count == 1 for count in logged.values())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["nonzero", "shape_tensor", "profiles", "aliased", "streaming"])
def test_special_engines(make, kind, caplog, capfd):
    """The same for engines with allocators, shape tensors, profiles, aliases or streamed weights."""
    case = make(kind)
    module = case.module()
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG, "trt_rt"):
        warnings.simplefilter("always")
        for n in (3, 8) * 10:
            module(*case.example(n))
    assert all(count == 1 for count in Counter(str(warning.message) for warning in caught).values())
    logged = Counter(
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("trt_rt") and not (kind == "profiles" and _is_tensorrts_information(record))
    )
    assert all(count == 1 for count in logged.values())
    assert capfd.readouterr() == ("", "")


def _is_tensorrts_information(record):
    """TensorRT 8.6 tells of every switch to another profile."""
    return record.name == "trt_rt.tensorrt" and record.levelno <= logging.INFO
