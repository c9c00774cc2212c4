"""Where the files of the C++ runtime are in this installation."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CMAKE_FOLDER", "INCLUDE_FOLDER", "LIBRARY", "LIBRARY_FOLDER", "PKG_CONFIG_FOLDER"]

_HERE = Path(__file__).resolve().parent

LIBRARY_FOLDER = _HERE / "lib"
"""The folder with ``libtrt_rt_runtime.so``, and with the reference engine for tests."""

LIBRARY = LIBRARY_FOLDER / "libtrt_rt_runtime.so"
"""The C++ runtime: registers ``trt_rt::execute_engine`` in the process that loads it."""

INCLUDE_FOLDER = _HERE / "include"
"""The folder for a compiler's ``-I``, with ``trt_rt/runtime.h`` and ``trt_rt/program.h``."""

CMAKE_FOLDER = _HERE / "cmake"
"""The folder for ``CMAKE_PREFIX_PATH``, or ``trt_rt_DIR``, so that ``find_package(trt_rt)`` works."""

PKG_CONFIG_FOLDER = LIBRARY_FOLDER / "pkgconfig"
"""The folder for ``PKG_CONFIG_PATH``, with ``trt_rt.pc``."""
