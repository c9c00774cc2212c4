"""Prints where the C++ runtime is, for build systems: ``python -m trt_rt.deploy --libdir``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from trt_rt.deploy.folders import CMAKE_FOLDER, INCLUDE_FOLDER, LIBRARY, LIBRARY_FOLDER, PKG_CONFIG_FOLDER

_ANSWERS = {
    "--cmakedir": (CMAKE_FOLDER, "the folder for CMake: -DCMAKE_PREFIX_PATH=..., then find_package(trt_rt)"),
    "--includes": (INCLUDE_FOLDER, "the folder with the headers"),
    "--libdir": (LIBRARY_FOLDER, "the folder with libtrt_rt_runtime.so"),
    "--library": (LIBRARY, "libtrt_rt_runtime.so itself, for dlopen, LD_PRELOAD and torch.ops.load_library"),
    "--pkgconfigdir": (PKG_CONFIG_FOLDER, "the folder for PKG_CONFIG_PATH, then pkg-config trt_rt"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one path.

    Parameters
    ----------
    arguments : sequence of str, optional
        One option. Default: those of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m trt_rt.deploy", description="Print where the C++ runtime of this installation is."
    )
    group = parser.add_mutually_exclusive_group(required=True)
    for option, (path, text) in _ANSWERS.items():
        group.add_argument(option, dest="path", action="store_const", const=path, help=text)
    print(parser.parse_args(arguments).path)


if __name__ == "__main__":
    main()
