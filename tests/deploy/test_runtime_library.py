"""The C++ runtime's library and the files that build systems use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import trt_rt
from tests.deploy.building import CMAKE, ROOT, Run, compile_cpp
from trt_rt.deploy import CMAKE_FOLDER, INCLUDE_FOLDER, LIBRARY, LIBRARY_FOLDER, PKG_CONFIG_FOLDER
from trt_rt.deploy.__main__ import main

readelf = pytest.mark.skipif(shutil.which("readelf") is None, reason="there is no readelf")

MOST_BYTES = 200_000

OTHER_TORCHES = [Path(folder) for folder in os.environ.get("TRT_RT_TORCHES", "").split(":") if folder]
"""Folders of packages `torch` of other versions, which must have the functions that the library uses."""


def elf(option: str) -> str:
    return subprocess.run(
        ["readelf", "--wide", option, str(LIBRARY)], capture_output=True, text=True, check=True
    ).stdout


def test_size() -> None:
    assert LIBRARY.stat().st_size <= MOST_BYTES


@readelf
def test_it_uses_only_the_stable_abi_of_pytorch() -> None:
    symbols = elf("--dyn-syms")
    undefined = re.findall(r" UND ([\w.]+)", symbols)
    of_torch = {name for name in undefined if "torch" in name}
    assert len(of_torch) > 30
    assert all(name.startswith(("aoti_torch_", "torch_")) for name in of_torch)
    mangled = [name for name in undefined if name.startswith(("_ZN3c10", "_ZNK3c10", "_ZN2at", "_ZNK2at"))]
    assert mangled == []
    for folder in (Path(torch.__file__).parent, *OTHER_TORCHES):
        library = folder / "lib/libtorch_cpu.so"
        result = subprocess.run(
            ["readelf", "--wide", "--dyn-syms", str(library)], capture_output=True, text=True, check=True
        )
        exported = set(re.findall(r" ((?:aoti_)?torch_\w+)$", result.stdout, re.M))
        assert of_torch <= exported, library


@readelf
def test_it_names_pytorch_and_neither_cuda_nor_tensorrt() -> None:
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", elf("--dynamic"))
    assert "libtorch_cpu.so" in needed
    assert "libstdc++.so.6" in needed, "a copy of it would add 100 KB, and stand beside PyTorch's"
    assert not any("cuda" in name or "nvinfer" in name or "python" in name for name in needed)
    assert "NODELETE" in elf("--dynamic")


@readelf
def test_it_exports_only_its_c_interface() -> None:
    exported = re.findall(r"(?:GLOBAL|WEAK)\s+DEFAULT\s+\d+ (\w+)", elf("--dyn-syms"))
    header = (INCLUDE_FOLDER / "trt_rt/runtime.h").read_text()
    assert set(exported) == set(re.findall(r"\b(trt_rt_\w+)\(", header))


@pytest.mark.parametrize(
    ("option", "path"),
    [
        ("--cmakedir", CMAKE_FOLDER),
        ("--includes", INCLUDE_FOLDER),
        ("--libdir", LIBRARY_FOLDER),
        ("--library", LIBRARY),
        ("--pkgconfigdir", PKG_CONFIG_FOLDER),
    ],
)
def test_paths(option: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([option])
    assert capsys.readouterr().out == f"{path}\n"
    assert path.exists()


def test_the_command_prints_a_path(run: Run) -> None:
    result = run(sys.executable, "-m", "trt_rt.deploy", "--libdir")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{LIBRARY_FOLDER}\n", "")


def test_versions_of_the_build_files() -> None:
    version = trt_rt.__version__
    assert f"Version: {version}\n" in (PKG_CONFIG_FOLDER / "trt_rt.pc").read_text()
    assert f'set(PACKAGE_VERSION "{version}")' in (CMAKE_FOLDER / "trt_rt-config-version.cmake").read_text()


USES_THE_LIBRARY = """
#include <stdio.h>
#include <trt_rt/runtime.h>
int main() { return puts(trt_rt_version()) < 0; }
"""


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="there is no pkg-config")
def test_pkg_config(tmp_path: Path, run: Run) -> None:
    flags = run("pkg-config", "--cflags", "--libs", "trt_rt", PKG_CONFIG_PATH=str(PKG_CONFIG_FOLDER))
    source = tmp_path / "uses.cpp"
    source.write_text(USES_THE_LIBRARY)
    folder = Path(torch.__file__).parent / "lib"
    torch_cpu = [f"-L{folder}", f"-Wl,-rpath,{folder}", "-Wl,--no-as-needed", "-ltorch_cpu", "-lc10"]
    program = compile_cpp(source, tmp_path / "uses", *flags.stdout.split(), *torch_cpu)
    assert run(program).stdout == f"{trt_rt.__version__}\n"


def test_cmake_finds_the_library(tmp_path: Path, run: Run) -> None:
    """Without PyTorch's own package file, which needs a CUDA toolkit for PyTorch with CUDA."""
    (tmp_path / "uses.cpp").write_text(USES_THE_LIBRARY)
    folder = Path(torch.__file__).parent / "lib"
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\n"
        "project(uses CXX)\n"
        f"find_package(trt_rt {trt_rt.__version__} REQUIRED)\n"
        "add_executable(uses uses.cpp)\n"
        "target_link_libraries(uses PRIVATE trt_rt::runtime"
        f" -Wl,--no-as-needed {folder}/libtorch_cpu.so {folder}/libc10.so)\n"
    )
    configured = run(CMAKE, "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={CMAKE_FOLDER}")
    assert configured.returncode == 0, configured.stderr
    built = run(CMAKE, "--build", tmp_path / "build")
    assert built.returncode == 0, built.stdout + built.stderr
    assert run(tmp_path / "build/uses").stdout == f"{trt_rt.__version__}\n"


def test_the_examples_are_in_their_cmake_file() -> None:
    folder = ROOT / "examples/cpp"
    [listed] = re.findall(r"foreach\(example ([^)]*)\)", (folder / "CMakeLists.txt").read_text())
    assert listed.split() == sorted(path.stem for path in folder.glob("*.cpp"))
