"""Runs the engines of a plan factory by the C++ operator: python -m tests.deploy.run_factory MODULE:CALLABLE.

Prints a JSON object: for each kind of engine, "right", "none" if the factory makes none, or the failure.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

# Before `import trt_rt`, which defines the operator in Python unless the library has.
LIBRARY = Path(__file__).parents[2] / "trt_rt/deploy/lib/libtrt_rt_runtime.so"
torch.ops.load_library(str(LIBRARY))

import trt_rt  # noqa: E402
from trt_rt.engine import Engine  # noqa: E402
from trt_rt.operator import OPERATOR, EngineMeta, TensorMeta  # noqa: E402

KINDS = (
    *("relu", "half", "two", "many", "nonzero", "shape_tensor", "shape_tensor32", "streaming", "aliased"),
    *("profiles", "empty", "scalar", "slow", "static", "fails"),
    *("identity_float16", "identity_int32", "identity_bool"),
)


def describe(plan: bytes, engine: Engine) -> EngineMeta:
    def tensor(each: trt_rt.IOTensor, unknown: str) -> TensorMeta:
        shape = tuple(
            f"{unknown}{each.name}_{i}" if size == -1 else size for i, size in enumerate(each.shape)
        )
        return TensorMeta(each.name, each.dtype, shape, each.location == "host")

    aliases = {each.name: each.aliased_input for each in engine.outputs if each.aliased_input is not None}
    return EngineMeta(
        "tensorrt",
        hashlib.sha256(plan).hexdigest(),
        tuple(tensor(each, "s_") for each in engine.inputs),
        tuple(tensor(each, "?") for each in engine.outputs),
        aliases,
    )


def call_all_sizes(made: dict[str, Any], meta: str, plan: torch.Tensor) -> None:
    for size in (1, 4, 4, 8, 32, 3, 1):
        arguments = made["example"](size)
        given = [argument.clone() for argument in arguments]
        results = OPERATOR(list(arguments), plan, meta)
        expected = made["expected"](*given)
        for result, value in zip(results, expected, strict=True):
            assert (result.dtype, result.shape) == (value.dtype, value.shape)
            assert torch.equal(result, value), (size, result, value)
        assert all(map(torch.equal, arguments, given)), "the inputs were changed"


def check(made: dict[str, Any], kind: str) -> str:
    engine = Engine.from_bytes(made["plan"], backend=made["backend"], device=made["device"])
    meta = describe(made["plan"], engine).dumps()
    plan = torch.frombuffer(bytearray(made["plan"]), dtype=torch.uint8)
    try:
        call_all_sizes(made, meta, plan)
        if made["device"].type == "cuda":  # the legacy default stream until now; more streams than contexts
            for _ in range(12):
                with torch.cuda.stream(torch.cuda.Stream()):
                    call_all_sizes(made, meta, plan)
            call_all_sizes(made, meta, plan)
        for index in range(1, torch.cuda.device_count() if made["device"].type == "cuda" else 0):
            with torch.cuda.device(index):  # the factory's tensors are on the current device
                call_all_sizes(made, meta, plan)
    except RuntimeError as error:
        if kind == "fails" and "TensorRT says:" in str(error):
            return "right"
        return str(error)
    except AssertionError as error:
        return f"wrong: {error}"
    return "right"


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    make = getattr(importlib.import_module(module), name)
    answers = {}
    for kind in KINDS:
        made = make(kind)
        if made is not None and made["device"].type == "cpu":
            os.environ["TRT_RT_TENSORRT_ON_CPU"] = "1"
        answers[kind] = check(made, kind) if made is not None else "none"
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
