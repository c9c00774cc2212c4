"""Check the shared libraries inside of wheels: python tools/check_wheel.py dist/*.whl.

A wheel must load with every PyTorch, CUDA and C++ library that its metadata allows. So its libraries may ask
for symbols of Python, of the C and C++ runtime, and of PyTorch's stable C interface, and for nothing else.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import zipfile
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

# What every Linux has, and libtorch_cpu, which PyTorch has loaded before the C++ runtime is.
LIBRARIES = re.compile(r"(libc|libm|libdl|libpthread|librt|libgcc_s|libstdc\+\+|ld-linux-[\w-]+)\.so\.\d+")
PYTORCH = {"libtorch_cpu.so"}
# Mangled names of c10, at, torch and nvinfer1: C++ interfaces that change between releases.
UNSTABLE = re.compile(r"_Z\w*?(3c10|2at|5torch|8nvinfer1)\w")
# manylinux_2_28: AlmaLinux 8, Debian 10, Ubuntu 20.04 and later.
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}
LARGEST_RUNTIME = 200_000
RUNTIME = "trt_rt/deploy/lib/libtrt_rt_runtime.so"
PRESENT = (RUNTIME, "trt_rt/_core/call.pyi", "trt_rt/py.typed", "trt_rt/deploy/include/trt_rt/program.h")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    parser.add_argument(
        "--any-linux", action="store_true", help="do not ask for symbols that manylinux_2_28 has"
    )
    arguments = parser.parse_args()
    faults = [fault for wheel in arguments.wheels for fault in check(wheel, arguments.any_linux)]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def check(path: Path, any_linux: bool) -> list[str]:
    """Return what is wrong with a wheel, and print its libraries."""
    faults = []
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        faults += [f"{path.name} has no {name}." for name in PRESENT if name not in names]
        libraries = sorted(name for name in names if name.endswith(".so"))
        if not any(name.startswith("trt_rt/_core/call.") for name in libraries):
            faults.append(f"{path.name} has no compiled trt_rt/_core/call.")
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {len(libraries)} libraries")
        for name in libraries:
            content = wheel.read(name)
            print(f"  {name}: {len(content) / 1e3:.0f} kB")
            faults += [f"{path.name}: {name} {fault}" for fault in faults_of(content, any_linux)]
            if name == RUNTIME and len(content) > LARGEST_RUNTIME:
                faults.append(
                    f"{path.name}: {name} has {len(content)} bytes; at most {LARGEST_RUNTIME} are allowed."
                )
    return faults


def faults_of(content: bytes, any_linux: bool) -> list[str]:
    """Return what is wrong with a shared library."""
    library = ELFFile(io.BytesIO(content))
    faults = []
    for section in library.iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
                    faults.append("has a run path of the machine that built it.")
                elif tag.entry.d_tag == "DT_NEEDED" and not allowed(tag.needed):
                    faults.append(f"needs {tag.needed}, which users need not have.")
        elif isinstance(section, GNUVerNeedSection) and not any_linux:
            for _, versions in section.iter_versions():
                faults += [
                    f"needs {version.name}, which manylinux_2_28 lacks."
                    for version in versions
                    if too_new(version.name)
                ]
    symbols = library.get_section_by_name(".dynsym")
    faults += [
        f"uses {symbol.name}, which is no stable interface."
        for symbol in symbols.iter_symbols()
        if symbol.entry.st_shndx == "SHN_UNDEF" and UNSTABLE.match(symbol.name)
    ]
    return faults


def allowed(library: str) -> bool:
    return library in PYTORCH or LIBRARIES.fullmatch(library) is not None


def too_new(version: str) -> bool:
    """True for a symbol version such as GLIBC_2.38 that the oldest supported Linux lacks."""
    kind, _, number = version.rpartition("_")
    if kind not in NEWEST or not re.fullmatch(r"[\d.]+", number):
        return False
    return tuple(map(int, number.split("."))) > NEWEST[kind]


if __name__ == "__main__":
    sys.exit(main())
