"""Builds the Cython core, trt_rt._core, and the C++ runtime; pyproject.toml has the rest of the package."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError

CORE = Path("trt_rt/_core")
DEPLOY = Path("trt_rt/deploy")
NATIVE = DEPLOY / "native"
# `make` sets this while it installs, because it compiles in place itself, and only what has changed.
SKIP_CORE = os.environ.get("TRT_RT_SKIP_CORE", "") not in ("", "0")
COMPILE_FLAGS = ["-std=c++17", "-O3", "-fno-plt", "-g0"]
DIRECTIVES = {
    "language_level": 3,
    "freethreading_compatible": True,
    "embedsignature": True,
    # An annotation is documentation for people and mypy; only a cdef declaration types a variable.
    "annotation_typing": False,
}
# The C++ runtime ships in every wheel: its size counts more than a few percent of time.
NATIVE_FLAGS = [
    *("-std=c++17", "-Os", "-g0", "-fPIC", "-Wall", "-Wextra", "-Werror=return-type"),
    *("-fvisibility=hidden", "-fvisibility-inlines-hidden", "-ffunction-sections", "-fdata-sections"),
]
# Never unloaded: PyTorch keeps a pointer to the operator, and TensorRT one to the log.
NATIVE_LINK_FLAGS = ["-Wl,--gc-sections", "-Wl,-z,nodelete", "-Wl,-z,noseparate-code", "-s"]
# Two Cython jobs and two compiler jobs: a job needs up to 1 GB, and small machines must build too.
JOBS = 2

# The smallest module that uses cydriver.pxd. C++ then needs every type that the .pxd names to be in cuda.h.
PROBE = "from cuda.bindings cimport cydriver\ndef probe():\n    return <int>cydriver.cuInit(0)\n"


class BuildCore(build_ext):
    """build_ext that translates trt_rt/_core/*.pyx and finds a cuda.h that fits cuda-bindings."""

    def build_extensions(self) -> None:
        bindings = cuda_bindings_version()
        generated = Path("build") / f"cython-{Cython.__version__}-cuda-bindings-{bindings}"
        include = self.find_cuda_include(generated, bindings)
        options = {
            "build_dir": str(generated),
            "compiler_directives": DIRECTIVES,
            "include_path": pxd_search_path(),
            "nthreads": JOBS,
        }
        translated = {ext.name: ext for ext in cythonize(self.extensions, **options)}
        # setuptools keeps its own notes on these objects, so they are filled in and not replaced.
        for ext in self.extensions:
            ext.sources = translated[ext.name].sources
            ext.depends = sorted({*ext.depends, *translated[ext.name].depends})
            ext.include_dirs.append(str(include))
        self.parallel = self.parallel or JOBS
        super().build_extensions()

    def find_cuda_include(self, generated: Path, bindings: str) -> Path:
        """The first directory with a cuda.h that the installed cuda-bindings compile against.

        A cydriver.pxd newer than the header usually does not compile, and whether an older one does
        depends on which structures it declares and whether it asks for cudaProfiler.h (which the
        nvidia-cuda-runtime wheel lacks). So nothing is guessed from version numbers: it is tried.
        """
        generated.mkdir(parents=True, exist_ok=True)
        source = generated / "cuda_probe.pyx"
        if not source.exists():
            source.write_text(PROBE)
        [probe] = cythonize(
            [Extension("cuda_probe", [str(source)], language="c++")],
            include_path=pxd_search_path(),
            compiler_directives=DIRECTIVES,
            quiet=True,
        )
        compiler = self.compiler.compiler_cxx
        if shutil.which(compiler[0]) is None:
            raise PlatformError(
                f"trt_rt needs a C++ compiler to build, and {compiler[0]!r} is not installed."
            )
        refusals = []
        for include in cuda_include_candidates():
            directories = [f"-I{directory}" for directory in (include, *self.include_dirs)]
            command = [*compiler, "-std=c++17", "-fsyntax-only", *directories, probe.sources[0]]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode == 0:
                print(f"trt_rt: cuda-bindings {bindings} with {describe_header(include)}")
                return include
            refusals.append(f"  {describe_header(include)}: {first_error(result.stderr)}")
        minor = ".".join(bindings.split(".")[:2])
        found = "\n".join(["It does not compile with:", *refusals]) if refusals else "No cuda.h was found."
        raise CompileError(
            f"trt_rt needs a cuda.h that cuda-bindings {bindings} compiles with. {found}\n"
            f"Install the headers of the same CUDA version (pip install 'nvidia-cuda-runtime=={minor}.*'), "
            "or cuda-bindings no newer than your CUDA toolkit, or set CUDA_HOME to a toolkit that fits."
        )


class BuildPackage(BuildCore):
    """build_ext that also builds the libraries of trt_rt.deploy."""

    def run(self) -> None:
        super().run()
        self.build_native()

    def build_native(self) -> None:
        """Build the libraries of trt_rt.deploy, which are no Python modules and need no foreign headers."""
        folder = (Path() if self.inplace else Path(self.build_lib)) / DEPLOY / "lib"
        folder.mkdir(parents=True, exist_ok=True)
        # Stands in for PyTorch's library, whose name is all that the link needs.
        stand_in = Path(self.build_temp) / "libtorch_cpu.so"
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        self.run_compiler(["-shared", "-x", "c++", os.devnull, "-Wl,-soname,libtorch_cpu.so"], stand_in)
        macros = [f'-DTRT_RT_VERSION="{self.distribution.get_version()}"', f"-I{DEPLOY / 'include'}"]
        self.build_library(
            folder / "libtrt_rt_runtime.so",
            sorted(NATIVE.glob("*.cpp")),
            macros,
            [
                f"-Wl,--version-script={NATIVE / 'exports.map'}",
                *("-Wl,--no-as-needed", str(stand_in), *self.shared_libstdcxx(), "-ldl"),
            ],
        )
        reference = NATIVE / "reference"
        self.build_library(
            folder / "libtrt_rt_reference.so",
            [*sorted(reference.glob("*.cpp")), NATIVE / "error.cpp", NATIVE / "json.cpp"],
            [],
            [f"-Wl,--version-script={reference / 'exports.map'}"],
        )

    def shared_libstdcxx(self) -> list[str]:
        """libstdc++ as a file to link, because some compilers link a copy of it by default.

        Exceptions travel from the library into PyTorch, which has the shared one. A copy also adds 100 KB.
        """
        name = "libstdc++.so.6"
        try:
            ctypes.CDLL(name)
        except OSError:
            return []
        paths = [line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
        return [path for path in dict.fromkeys(paths) if Path(path).name.startswith(name)]

    def build_library(
        self, library: Path, sources: list[Path], macros: list[str], libraries: list[str]
    ) -> None:
        headers = [*NATIVE.rglob("*.h"), *NATIVE.rglob("*.map"), *(DEPLOY / "include").rglob("*.h")]
        depends = [*headers, *sources, Path(__file__)]
        if library.exists() and all(path.stat().st_mtime < library.stat().st_mtime for path in depends):
            return
        objects = [Path(self.build_temp) / library.stem / f"{source.stem}.o" for source in sources]
        objects[0].parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(JOBS) as pool:
            commands = [[*NATIVE_FLAGS, *macros, "-c", str(source)] for source in sources]
            list(pool.map(self.run_compiler, commands, objects))
        soname = f"-Wl,-soname,{library.name}"
        self.run_compiler(["-shared", soname, *NATIVE_LINK_FLAGS, *map(str, objects), *libraries], library)

    def run_compiler(self, arguments: list[str], output: Path) -> None:
        command = [self.compiler.compiler_cxx[0], *arguments, "-o", str(output)]
        print(" ".join(command))
        if subprocess.run(command).returncode:
            raise CompileError(f"The C++ compiler could not make {output}.")


def cuda_bindings_version() -> str:
    try:
        return importlib.metadata.version("cuda-bindings")
    except importlib.metadata.PackageNotFoundError:
        raise PlatformError(
            "cuda-bindings is not installed, and building trt_rt needs its .pxd files. "
            "Build with 'pip install .', which fetches it, or first run 'pip install cuda-bindings'."
        ) from None


def pxd_search_path() -> list[str]:
    """Real directories for Cython's cimport: this source tree, and where cuda.bindings is installed."""
    spec = importlib.util.find_spec("cuda.bindings")
    locations = spec.submodule_search_locations if spec else None
    return [".", *(str(Path(location).parents[1]) for location in locations or [])]


def cuda_include_candidates() -> list[Path]:
    """Directories that hold a cuda.h: a toolkit's first, then the nvidia-cuda-runtime wheel's."""
    toolkits = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    candidates = [Path(toolkit) / "include" for toolkit in toolkits if toolkit]
    for entry in sys.path:
        candidates += sorted(Path(entry).glob("nvidia/cu*/include"))
    return [include for include in dict.fromkeys(candidates) if (include / "cuda.h").is_file()]


def describe_header(include: Path) -> str:
    header = (include / "cuda.h").read_text(encoding="utf-8", errors="replace")
    match = re.search(r"^#define CUDA_VERSION (\d+)", header, flags=re.MULTILINE)
    version = f"CUDA {int(match[1]) // 1000}.{int(match[1]) % 1000 // 10}" if match else "unknown version"
    return f"{include}/cuda.h ({version})"


def first_error(stderr: str) -> str:
    return next((line for line in stderr.splitlines() if "error" in line), "the compiler failed").strip()


def core_extensions() -> list[Extension]:
    return [
        Extension(
            f"trt_rt._core.{source.stem}",
            [source.as_posix()],
            language="c++",
            extra_compile_args=COMPILE_FLAGS,
            # What a .pyx includes or cimports: it is compiled again when one of these changes.
            depends=[path.as_posix() for path in sorted(CORE.glob("*.px[id]"))],
        )
        for source in sorted(CORE.glob("*.pyx"))
    ]


if __name__ == "__main__":
    setup(ext_modules=[] if SKIP_CORE else core_extensions(), cmdclass={"build_ext": BuildPackage})
