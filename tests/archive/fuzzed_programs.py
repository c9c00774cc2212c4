"""Loads and runs a case of ``tests/reference/operator_fuzzing.py`` as the program of a file."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch._export.serde.serialize import (
    _TORCH_TO_SERIALIZE_DTYPE,
    _TORCH_TO_SERIALIZE_LAYOUT,
    _TORCH_TO_SERIALIZE_MEMORY_FORMAT,
)

from tests.archive.forged_programs import Call, forged_program, number, tensor
from tests.reference.operator_fuzzing import operator_of, values
from trt_rt.archive import load
from trt_rt.archive.program_checks import ATEN_OPERATORS
from trt_rt.errors import ArchiveError
from trt_rt.reference.dtypes import DTYPES_BY_NAME

__all__ = ["OPERATORS", "attempt"]

OPERATORS = tuple(sorted(name.removeprefix("torch.ops.") for name in ATEN_OPERATORS))
"""The operators of PyTorch that a program in a file may call."""

_ODD_FLOATS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def attempt(header: Mapping[str, Any], generator: random.Random) -> str:
    """Make a program of a plan's graph, with the plan's weights as inputs; load and run it."""
    described = [*header["inputs"], *header["weights"]]
    inputs = [values(tuple(each["shape"]), DTYPES_BY_NAME[each["dtype"]], generator) for each in described]
    names = [tensor(f"x{index}") for index in range(len(inputs))]
    calls = [_call(layer, names, index) for index, layer in enumerate(header["graph"]["nodes"])]
    with TemporaryDirectory() as folder:
        path = forged_program(Path(folder, "a.pt2"), inputs, calls, [tensor("x0")])
        try:
            program = load(path)
        except ArchiveError:
            return "refused-by-load"
    try:
        program(*inputs)
    except Exception:  # PyTorch's operators raise many kinds
        return "refused-by-run"
    return "ran"


def _call(layer: Mapping[str, Any], names: list[dict[str, Any]], index: int) -> Call:
    """The layer as a call; its result is added to the names of the values."""
    schema = operator_of(layer["operator"])._schema
    positional = [argument.name for argument in schema.arguments if not argument.kwarg_only]
    inputs = [(name, _argument(value, names)) for name, value in zip(positional, layer["args"], strict=False)]
    inputs += [(name, _argument(value, names)) for name, value in layer["kwargs"].items()]
    outputs: list[dict[str, Any]] = []
    for position, result in enumerate(schema.returns):
        kind, name = str(result.real_type), f"y{index}" if not position else f"y{index}_{position}"
        if kind == "Tensor":
            outputs.append(tensor(name))
        elif "Tensor" in kind:
            outputs.append({"as_tensors": [{"name": name}]})
        else:
            outputs.append(number(name))
    first = outputs[0] if outputs else names[0]
    names.append({"as_tensor": first["as_tensors"][0]} if "as_tensors" in first else first)
    return {
        "target": layer["operator"],
        "inputs": inputs,
        "kinds": dict.fromkeys(layer["kwargs"], 2),
        "outputs": outputs,
    }


def _argument(value: Any, names: list[dict[str, Any]]) -> dict[str, Any]:
    if value is None:
        return {"as_none": True}
    if isinstance(value, bool):
        return {"as_bool": value}
    if isinstance(value, int):
        return {"as_int": value}
    if isinstance(value, float):
        return {"as_float": value}
    if isinstance(value, str):
        return {"as_string": value}
    if isinstance(value, list):
        return _list([_argument(element, names) for element in value])
    ((kind, content),) = value.items()
    if kind == "value":
        return names[content]
    if kind == "float":
        return {"as_float": _ODD_FLOATS[content]}
    if kind == "dtype":
        return {"as_scalar_type": int(_TORCH_TO_SERIALIZE_DTYPE[DTYPES_BY_NAME[content]])}
    if kind == "layout":
        return {"as_layout": int(_TORCH_TO_SERIALIZE_LAYOUT[torch.strided])}
    if kind == "memory_format":
        return {"as_memory_format": int(_TORCH_TO_SERIALIZE_MEMORY_FORMAT[getattr(torch, content)])}
    return {"as_device": {"type": "cpu", "index": None}}


def _list(elements: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {next(iter(element)) for element in elements}
    contents = [next(iter(element.values())) for element in elements]
    if kinds <= {"as_int"}:
        return {"as_ints": contents}
    if kinds <= {"as_int", "as_sym_int"}:
        return {
            "as_sym_ints": [
                content if isinstance(content, dict) else {"as_int": content} for content in contents
            ]
        }
    if kinds == {"as_tensor"}:
        return {"as_tensors": contents}
    if kinds == {"as_tensor", "as_none"}:
        return {
            "as_optional_tensors": [
                {"as_none": True} if content is True else {"as_tensor": content} for content in contents
            ]
        }
    for kind in ("as_float", "as_bool", "as_string"):
        if kinds == {kind}:
            return {f"{kind}s": contents}
    return {"as_ints": []}
