"""Which library the C++ runtime takes for TensorRT, and what it says about others.

The libraries are the reference engine under TensorRT's names, with the virtual tables of their version.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.deploy.building import ROOT, compile_cpp
from trt_rt.deploy import LIBRARY, LIBRARY_FOLDER

# Calls an engine of each scenario: a backend, a folder for TRT_RT_TENSORRT_LIBDIR, whether TensorRT may run
# on the CPU, and the version of the TensorRT that has built the plan, if the plan says so.
_CALLS = f"""
import hashlib, json, os, sys, torch
torch.ops.load_library({str(LIBRARY)!r})
from dataclasses import replace
from tests.deploy.programs import affine_plan, program_over

def call(backend, folder, on_cpu, version):
    os.environ["TRT_RT_TENSORRT_LIBDIR"] = folder
    os.environ["TRT_RT_TENSORRT_ON_CPU"] = "1" if on_cpu else "0"
    plan, meta = affine_plan()
    if version:
        plan = b"ftrt" + bytes(20) + bytes(map(int, version.split("."))) + bytes(100)
    meta = replace(meta, backend=backend, sha256=hashlib.sha256(plan).hexdigest())
    try:
        return str(program_over(plan, meta)(torch.ones(1, 8)).sum().item())
    except RuntimeError as error:
        return str(error)

print(json.dumps([call(*scenario) for scenario in json.loads(sys.argv[1])]))
"""


def make_library(folder: Path, name: str, code: str, *flags: str) -> None:
    folder.mkdir(parents=True)
    source = folder / "library.cpp"
    source.write_text(code)
    compile_cpp(source, folder / name, "-shared", "-fPIC", *flags)


def reports(version: int) -> str:
    return f'extern "C" int getInferLibVersion() {{ return {version}; }}'


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The result or the message of each call, by the name of its scenario; one process makes them all."""
    folder = tmp_path_factory.mktemp("libraries")
    (folder / "10").mkdir()
    shutil.copy(LIBRARY_FOLDER / "libtrt_rt_reference.so", folder / "10/libnvinfer.so.10")
    native = ROOT / "trt_rt/deploy/native"
    sources = [*(native / "reference").glob("*.cpp"), native / "error.cpp", native / "json.cpp"]
    unity = "".join(f'#include "{source}"\n' for source in sources)
    make_library(folder / "11", "libnvinfer_lean.so.11", unity, "-DTRT_RT_REFERENCE_VERSION=110100")
    make_library(folder / "12", "libnvinfer.so.12", reports(120000))
    make_library(folder / "8.6", "libnvinfer.so.8", reports(8601))
    make_library(folder / "8.5.10", "libnvinfer.so.8", reports(8510))
    make_library(folder / "other", "libnvinfer.so.10", 'extern "C" int answer() { return 42; }')
    (folder / "empty").mkdir()
    scenarios = {
        "no folder": ("tensorrt", str(folder / "missing"), True, ""),
        "no library": ("tensorrt", str(folder / "empty"), True, ""),
        "not TensorRT": ("tensorrt", str(folder / "other"), True, ""),
        "12.0.0": ("tensorrt", str(folder / "12"), True, ""),
        "8.6.1": ("tensorrt", str(folder / "8.6"), True, ""),
        "8.5.10": ("tensorrt", str(folder / "8.5.10"), True, ""),
        "newer plan": ("tensorrt", str(folder / "11"), True, "11.2.0.5"),
        "refused plan": ("tensorrt", str(folder / "11"), True, "11.0.0.1"),
        "10": ("tensorrt", str(folder / "10"), True, ""),
        "11": ("tensorrt_lean", str(folder / "11"), True, ""),
        "RTX": ("tensorrt_rtx", "", True, ""),
        "on the CPU": ("tensorrt_dispatch", "", False, ""),
    }
    result = subprocess.run(
        [sys.executable, "-c", _CALLS, json.dumps(list(scenarios.values()))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (result.returncode, result.stderr) == (0, "")
    return dict(zip(scenarios, json.loads(result.stdout), strict=True))


@pytest.mark.parametrize("version", ["10", "11"])
def test_known_versions(answers: Mapping[str, str], version: str) -> None:
    """The virtual tables and the logger of TensorRT 11 differ from those of TensorRT 10."""
    assert answers[version] == "24.0"


@pytest.mark.parametrize("version", ["12.0.0", "8.6.1", "8.5.10"])
def test_unknown_versions(answers: Mapping[str, str], version: str) -> None:
    message = f"is TensorRT {version}. The C++ runtime knows TensorRT 10 and 11, and calls no other."
    assert message in answers[version]


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("RTX", "The program has a plan of the backend 'tensorrt_rtx'."),
        ("newer plan", "was built by TensorRT 11.2.0, and"),
        ("no folder", "missing', which is not a folder. Set it to the folder that has libnvinfer.so"),
        ("no library", "No TensorRT library could be loaded. Install libnvinfer"),
        ("no library", "libnvinfer_dispatch.so.11: cannot open shared object file"),
        ("not TensorRT", "has no function getInferLibVersion, so it is not TensorRT's."),
        ("on the CPU", "must be on a CUDA device, because TensorRT runs on these only"),
        ("refused plan", "TensorRT says: This is no plan of trt_rt's reference backend."),
        ("refused plan", "A plan runs on the kind of GPU and"),
    ],
)
def test_messages(answers: Mapping[str, str], scenario: str, message: str) -> None:
    assert message in answers[scenario]
