"""Builds the compiled halves of the benches in place: python bench/setup.py build_ext --inplace."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from setuptools import Extension, setup

BENCH = Path(__file__).resolve().parent


def bench_extensions(compile_flags: list[str]) -> list[Extension]:
    return [
        # C and not C++: callgrind finds bench_repeat_calls by its unmangled name.
        Extension("prepared_call", ["prepared_call.pyx"], extra_compile_args=["-O2", "-g0"]),
        Extension("driver_floors", ["driver_floors.pyx"], language="c++", extra_compile_args=compile_flags),
        Extension(
            "null_engine.null_context",
            ["null_engine/null_context.pyx"],
            language="c++",
            extra_compile_args=compile_flags,
        ),
    ]


if __name__ == "__main__":
    # Not in the repository root: setuptools would read trt_rt's pyproject.toml there.
    os.chdir(BENCH)
    core_build = runpy.run_path(str(BENCH.parent / "setup.py"), run_name="trt_rt_setup")
    setup(
        name="trt_rt_bench",
        packages=[],
        py_modules=[],
        ext_modules=bench_extensions(core_build["COMPILE_FLAGS"]),
        cmdclass={"build_ext": core_build["BuildCore"]},
    )
