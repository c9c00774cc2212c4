"""The reference backend has TensorRT's own API, as the real bindings that are installed here describe it.

The bindings write their signatures into docstrings; a reference class may have fewer members than TensorRT's,
but none that TensorRT's does not have, and none with other parameters.
"""

from __future__ import annotations

import enum
import functools
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt import reference

BACKENDS = ["tensorrt_rtx", "tensorrt_lean", "tensorrt_dispatch", "tensorrt"]
NEWEST = "tensorrt_rtx"

ALWAYS_HERE = ["tensorrt_rtx", "tensorrt_lean"]
"""What ``make test`` installs on every machine: with none of them this test would prove nothing."""

USED = {
    "Runtime": ["deserialize_cuda_engine", "engine_host_code_allowed", "logger"],
    "ICudaEngine": [
        "create_engine_inspector",
        "create_execution_context",
        "device_memory_size_v2",
        "get_aliased_input_tensor",
        "get_device_memory_size_for_profile_v2",
        "get_tensor_dtype",
        "get_tensor_format",
        "get_tensor_location",
        "get_tensor_mode",
        "get_tensor_name",
        "get_tensor_profile_shape",
        "get_tensor_profile_values",
        "get_tensor_shape",
        "get_weight_streaming_automatic_budget",
        "is_shape_inference_io",
        "name",
        "num_io_tensors",
        "num_layers",
        "num_optimization_profiles",
        "refittable",
        "serialize",
        "streamable_weights_size",
        "weight_streaming_budget_v2",
        "weight_streaming_scratch_memory_size",
    ],
    "IExecutionContext": [
        "active_optimization_profile",
        "enqueue_emits_profile",
        "execute_async_v3",
        "get_max_output_size",
        "get_tensor_address",
        "get_tensor_shape",
        "infer_shapes",
        "profiler",
        "report_to_profiler",
        "set_device_memory",
        "set_input_shape",
        "set_optimization_profile_async",
        "set_output_allocator",
        "set_tensor_address",
        "update_device_memory_size_for_shapes",
    ],
    "ILogger": ["log"],
    "IProfiler": ["report_layer_time"],
    "IHostMemory": ["nbytes"],
    "IOutputAllocator": [],
    "Refitter": [
        "get_all_weights",
        "get_missing_weights",
        "get_weights_prototype",
        "refit_cuda_engine",
        "set_named_weights",
    ],
    "Weights": ["dtype", "size"],
}
"""What trt_rt calls: every binding must have it."""

USED_WHERE_THERE_IS_ONE = {"EngineInspector": ["get_engine_information", "execution_context"]}
"""The lean and dispatch runtimes have no engine inspector."""

USED_BEYOND_REFERENCE = {
    "ICudaEngine": ["get_tensor_format_desc"],  # by the adapters of the lean and dispatch runtimes
    "IPluginRegistry": ["all_creators", "load_library"],
}
"""What trt_rt calls, and the reference backend does not have."""

UNCONVERTIBLE = {
    "tensorrt_lean": {"ICudaEngine.create_engine_inspector", "ICudaEngine.get_tensor_format"},
    "tensorrt_dispatch": {"ICudaEngine.create_engine_inspector", "ICudaEngine.get_tensor_format"},
}
"""Calls that raise TypeError, because these bindings do not export the type that they return."""

ONLY_IN_REFERENCE = {
    # A network is built by one call, not by TensorRT's builder API; the magic tells whose a plan is.
    "build": "makes plans",
    "PLAN_MAGIC": "recognises plans",
}

CLASSES = [
    name
    for name in reference.__all__
    if inspect.isclass(getattr(reference, name)) and not issubclass(getattr(reference, name), enum.Enum)
]
ENUMS = [
    name
    for name in reference.__all__
    if inspect.isclass(getattr(reference, name)) and issubclass(getattr(reference, name), enum.Enum)
]


@functools.cache
def inspect_binding(name: str) -> tuple[int, str]:
    script = Path(__file__).with_name("binding_signatures.py")
    found = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), name],
        capture_output=True,
        text=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(script.parents[2]), *sys.path])},
    )
    return found.returncode, found.stdout if found.returncode in (0, 3) else found.stderr


def described(name: str) -> dict[str, Any]:
    status, output = inspect_binding(name)
    if status == 3 and name not in ALWAYS_HERE:
        pytest.skip(output.strip())
    assert status == 0, f"the bindings of {name} are needed here: {output}"
    return json.loads(output)


@pytest.fixture(params=BACKENDS)
def binding(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"name": request.param, **described(request.param)}


@pytest.fixture
def newest() -> dict[str, Any]:
    return described(NEWEST)


def own_members(cls: type) -> dict[str, Any]:
    """What a reference class and its bases of ours define; not what they inherit from tuple or bytes."""
    return {
        name: value
        for base in reversed(cls.__mro__)
        if base.__module__.startswith("trt_rt.")
        for name, value in vars(base).items()
        if not name.startswith("_") or name == "__getitem__"
    }


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)[1:]


def union(overloads: list[dict[str, Any]]) -> list[str]:
    merged: list[str] = []
    for overload in overloads:
        merged += [name for name in overload["parameters"] if name not in merged]
    return merged


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_only_what_the_newest_bindings_have(newest: dict[str, Any], name: str) -> None:
    real = newest["classes"][name]
    extra = set(own_members(getattr(reference, name))).difference(real)
    assert not extra, f"{name} of {NEWEST} {newest['version']} has no {sorted(extra)}"


def shared_members(binding: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Every member that a class of the reference backend has in common with the binding's."""
    for name in CLASSES:
        real = binding["classes"].get(name, {})
        for member, value in own_members(getattr(reference, name)).items():
            if member in real:
                yield f"{name}.{member}", value, real[member]


def test_methods_have_the_parameters_of_the_bindings(binding: dict[str, Any]) -> None:
    wrong = {}
    compared = 0
    for name, value, real in shared_members(binding):
        if real["kind"] == "method":
            overloads = real["overloads"]
            allowed = [overload["parameters"] for overload in overloads] + [union(overloads)]
            compared += 1
            if not overloads or parameters(value) not in allowed:
                wrong[name] = (parameters(value), allowed)
    assert not wrong
    assert compared > 30


def test_properties_are_properties_and_settable_as_in_the_bindings(binding: dict[str, Any]) -> None:
    wrong = {}
    compared = 0
    for name, value, real in shared_members(binding):
        ours = {"kind": "property" if isinstance(value, property) else "other"}
        theirs = {"kind": "property" if real["kind"] == "property" else "other"}
        if isinstance(value, property) and real["kind"] == "property":
            compared += 1
            ours["settable"], theirs["settable"] = value.fset is not None, real["settable"]
        if ours != theirs:
            wrong[name] = (ours, theirs)
    assert not wrong
    assert compared > 15


def test_enum_members_have_the_values_of_the_bindings(binding: dict[str, Any]) -> None:
    wrong = {}
    compared = 0
    for name in [*ENUMS, "ILogger.Severity"]:
        ours = functools.reduce(getattr, name.split("."), reference)
        members = {member: int(value) for member, value in ours.__members__.items()}
        real = binding["enums"].get(name, {})
        compared += bool(real)
        # An older binding may lack members that the newest has.
        expected = members if binding["name"] == NEWEST else {key: members.get(key) for key in real}
        if real and real != expected:
            wrong[name] = (members, real)
    assert not wrong
    assert compared >= 9


def test_every_binding_has_what_trt_rt_uses(binding: dict[str, Any]) -> None:
    classes = binding["classes"]
    missing = [
        f"{name}.{member}"
        for used in (USED, USED_BEYOND_REFERENCE)
        for name, members in used.items()
        for member in members
        if member not in classes.get(name, {})
    ]
    missing += [
        f"{name}.{member}"
        for name, members in USED_WHERE_THERE_IS_ONE.items()
        if name in classes
        for member in members
        if member not in classes[name]
    ]
    assert not missing


def test_what_trt_rt_uses_returns_types_that_the_binding_exports(binding: dict[str, Any]) -> None:
    exported = {*binding["classes"], *binding["enums"]}
    unconvertible = set()
    for name, members in USED.items():
        for member in members:
            for overload in binding["classes"][name][member].get("overloads", []):
                # pybind11 writes the C++ name of a type that it did not know when it defined the method.
                match = re.fullmatch(r"nvinfer1::(?:v_\d+_\d+::)?(\w+)", overload["returns"])
                if match and not exported.intersection({match[1], match[1].removeprefix("I")}):
                    unconvertible.add(f"{name}.{member}")
    assert unconvertible == UNCONVERTIBLE.get(binding["name"], set())


def test_what_trt_rt_uses_is_in_the_reference_backend() -> None:
    missing = [
        f"{name}.{member}"
        for name, members in (USED | USED_WHERE_THERE_IS_ONE).items()
        for member in members
        if not hasattr(getattr(reference, name), member)
    ]
    assert not missing


def test_the_reference_module_exports_nothing_else(newest: dict[str, Any]) -> None:
    exported = {*newest["classes"], *newest["enums"]}
    assert set(reference.__all__).difference(exported) == set(ONLY_IN_REFERENCE)


def test_output_allocators_and_profilers_need_only_the_documented_methods(newest: dict[str, Any]) -> None:
    # A subclass finds out by hasattr which of them it inherits, so these must stay undefined.
    assert not own_members(reference.IOutputAllocator)
    assert not newest["classes"]["IOutputAllocator"]
