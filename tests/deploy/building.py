"""Compiles C++ for the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch

__all__ = ["CMAKE", "ROOT", "Run", "compile_cpp", "torch_flags"]

ROOT = Path(__file__).parents[2]

CMAKE = shutil.which("cmake", path=sysconfig.get_path("scripts")) or "cmake"
"""Of the package cmake, which the extra `test` installs, or the system's."""

Run: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


def torch_flags() -> list[str]:
    """What the headers and libraries of the installed PyTorch need of a compiler."""
    folder = Path(torch.__file__).parent
    headers = [folder / "include", folder / "include/torch/csrc/api/include"]
    libraries = ["-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10"]
    return [
        *(f"-I{header}" for header in headers),
        *(f"-L{folder / 'lib'}", f"-Wl,-rpath,{folder / 'lib'}", *libraries),
    ]


def compile_cpp(source: Path, output: Path, *flags: str) -> Path:
    # Without warnings: those of PyTorch's headers differ from version to version.
    command = [
        os.environ.get("CXX", "c++"),
        "-std=c++20" if torch.__version__ >= "2.14" else "-std=c++17",  # what PyTorch's headers need
        "-O0",
        "-w",
        str(source),
        "-o",
        str(output),
        *flags,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return output
