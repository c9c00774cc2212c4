"""Builds C++ programs and a package for the tests, once for all tests and workers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from tests.deploy.building import CMAKE, ROOT, Run, compile_cpp, torch_flags
from tests.deploy.programs import export_affine
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt.deploy import CMAKE_FOLDER, INCLUDE_FOLDER, LIBRARY_FOLDER
from trt_rt.deploy.packaging import package_program

RUNTIME = [f"-I{INCLUDE_FOLDER}", f"-L{LIBRARY_FOLDER}", "-ltrt_rt_runtime", f"-Wl,-rpath,{LIBRARY_FOLDER}"]


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Path]:
    """Make a file or folder of this run by a function, in one of pytest-xdist's workers."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def build(name: str, make: Callable[[Path], Any]) -> Path:
        path = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not path.exists():
                unfinished = shared / f"{name}.unfinished"
                make(unfinished)
                unfinished.rename(path)
        return path

    return build


@pytest.fixture(scope="session")
def compiled(build_once: Callable[..., Path]) -> Callable[[str], Path]:
    """Compile a source file of the repository against PyTorch and the library, as docs/deploy.md says."""

    def program(source: str) -> Path:
        path = ROOT / source
        return build_once(f"program-{path.stem}", lambda to: compile_cpp(path, to, *torch_flags(), *RUNTIME))

    return program


@pytest.fixture(scope="session")
def examples(build_once: Callable[..., Path]) -> Path:
    """The folder with the programs of examples/cpp, built by their CMakeLists.txt."""
    if torch.version.cuda is not None and shutil.which("nvcc") is None:
        pytest.skip("there is no nvcc, which PyTorch's files for CMake need in a PyTorch with CUDA")

    def build(folder: Path) -> None:
        # CMake's files contain the folder's path, so what build_once renames is a link to it.
        prefixes = f"{torch.utils.cmake_prefix_path};{CMAKE_FOLDER}"
        steps: list[list[str | Path]] = [
            [CMAKE, "-S", ROOT / "examples/cpp", "-B", f"{folder}.build", f"-DCMAKE_PREFIX_PATH={prefixes}"],
            [CMAKE, "--build", f"{folder}.build"],
        ]
        for step in steps:
            result = subprocess.run(step, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stdout + result.stderr
        folder.symlink_to(f"{folder}.build")

    return build_once("examples", build)


@pytest.fixture(scope="session")
def calls(compiled: Callable[[str], Path]) -> Path:
    """The program of most tests."""
    return compiled("tests/deploy/programs/calls.cpp")


@pytest.fixture(scope="session")
def package(build_once: Callable[..., Path]) -> Path:
    """A program around one engine of the reference backend, y = relu(2 x + 1), for batches of 1 to 32."""
    return build_once("app", lambda folder: package_program(export_affine(), folder))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program with `environment` added to that of the tests, and return what it printed."""

    def call(*command: Any, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("TRT_RT_TENSORRT")
        }
        return subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            timeout=SECONDS_UNTIL_DEADLOCK,
            check=False,
            cwd=tmp_path,
            env={**inherited, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        )

    return call


@pytest.fixture
def copied(package: Path, tmp_path: Path) -> Path:
    """A copy of the package, to damage."""
    return Path(shutil.copytree(package, tmp_path / "copied"))
