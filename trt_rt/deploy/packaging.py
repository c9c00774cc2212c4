"""Packages for C++: a program compiled by AOTInductor, its constants, and TorchScript."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument

from trt_rt.compiled.torchscript import torchscript_calls, torchscript_module
from trt_rt.deploy.arguments import constants_as_arguments
from trt_rt.deploy.constants_file import write_constants
from trt_rt.deploy.input_description import close_gaps, describe_input
from trt_rt.errors import CompileError, TRTError
from trt_rt.operator import OPERATOR

__all__ = ["CONSTANTS_FILE", "PROGRAM_FILE", "TORCHSCRIPT_FILE", "Package", "package_program"]

PROGRAM_FILE = "program.pt2"
"""The AOTInductor package: PyTorch's part of the program as machine code, without constants."""

CONSTANTS_FILE = "constants.safetensors"
"""The plans, and the weights of PyTorch's operators. The C++ runtime maps it."""

TORCHSCRIPT_FILE = "program.ts"
"""The same program as TorchScript, with its plans and weights."""

_ARGUMENTS_KEY = "trt_rt_arguments"
"""In the metadata of the AOTInductor package: how many constants the program takes as arguments."""

_INPUTS_KEY = "trt_rt_inputs"
"""In the same place: what the tensors are that a caller gives to the program, with ``;`` between."""

_INDUCTOR_CONFIGS: dict[str, Any] = {
    "aot_inductor.package_constants_in_so": False,
    # Named explicitly, because some compilers link libstdc++ statically. PyTorch has the shared library, and
    # a process with two copies fails where one reads the other's objects: std::bad_cast, or a crash, at
    # loading.
    "aot_inductor.custom_op_libs": [":libstdc++.so.6"],
}


@dataclass(frozen=True)
class Package:
    """The files that `package_program` wrote.

    Attributes
    ----------
    folder : Path
        The folder that a C++ program loads.
    sizes : dict of str to int
        The bytes of each file, by name.
    engines : int
        The number of plans.
    """

    folder: Path
    sizes: Mapping[str, int]
    engines: int


def package_program(
    exported: ExportedProgram, folder: str | os.PathLike[str], *, torchscript: bool = False
) -> Package:
    """Compile a program for C++, with its engines' plans beside it.

    AOTInductor compiles PyTorch's part of the program for this machine's processor, and for the GPU of this
    machine if the program is for CUDA. The plans and weights are not in what it compiles, but in a file that
    the C++ runtime maps, so loading copies no plan. The compiled program takes the plans as its first
    arguments.

    Parameters
    ----------
    exported : torch.export.ExportedProgram
        A program whose engines are calls of ``trt_rt::execute_engine``.
    folder : path-like
        Is made if it does not exist. Files of an earlier package are replaced, when all of the new ones are
        complete.
    torchscript : bool
        Whether to write ``program.ts`` as well. ``torch::jit::load`` copies its plans into memory.

    Returns
    -------
    Package
        What was written.

    Raises
    ------
    TRTError
        The program has something that a package cannot hold.
    CompileError
        AOTInductor or its C++ compiler failed.
    OSError
        A file cannot be written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".package-", dir=target) as temporary:
        program = Path(temporary) / PROGRAM_FILE
        plans = _plans(exported)
        compilable, arguments = constants_as_arguments(exported, plans)
        _compile(compilable, program, len(arguments))
        write_constants(
            Path(temporary) / CONSTANTS_FILE, {**arguments, **_constants(compilable, program)}, arguments
        )
        files = [CONSTANTS_FILE, PROGRAM_FILE]
        if torchscript:
            files.append(TORCHSCRIPT_FILE)
            _write_torchscript(exported, Path(temporary) / TORCHSCRIPT_FILE)
        for file in files:
            os.replace(Path(temporary) / file, target / file)
    sizes = {file: (target / file).stat().st_size for file in files}
    return Package(target, sizes, len(plans))


def _compile(exported: ExportedProgram, path: Path, arguments: int) -> None:
    # AOTInductor compiles no checks of its inputs that are on by default.
    placeholders = exported.graph.find_nodes(op="placeholder")
    inputs = [
        node
        for spec, node in zip(exported.graph_signature.input_specs, placeholders, strict=True)
        if spec.kind == InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)
    ]
    for node in inputs[arguments:]:
        close_gaps(node)
    lines = [describe_input(exported, node) for node in inputs[arguments:]]
    metadata = {"aot_inductor.metadata": {_ARGUMENTS_KEY: str(arguments), _INPUTS_KEY: ";".join(lines)}}
    try:
        with torch.no_grad(), warnings.catch_warnings(), _linker_finds_libstdcxx():
            # Inductor warns of its own code, which differs from one PyTorch to the next.
            warnings.simplefilter("ignore")
            torch._inductor.aoti_compile_and_package(
                exported, package_path=str(path), inductor_configs={**_INDUCTOR_CONFIGS, **metadata}
            )
    except Exception as error:
        raise CompileError(
            f"AOTInductor could not compile the program: {_first_line(error)} It needs a C++ compiler "
            "(g++, or the one that the environment variable CXX names), and for a program on CUDA a GPU of "
            "the kind that will run it."
        ) from error


@contextmanager
def _linker_finds_libstdcxx() -> Iterator[None]:
    """Let the linker search the folder of the libstdc++ that PyTorch uses in this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    folders = {str(Path(line.split(maxsplit=5)[-1]).parent) for line in lines if "/libstdc++.so.6" in line}
    before = os.environ.get("LIBRARY_PATH")
    os.environ["LIBRARY_PATH"] = os.pathsep.join([*filter(None, [before]), *sorted(folders)])
    try:
        yield
    finally:
        if before is None:
            del os.environ["LIBRARY_PATH"]
        else:
            os.environ["LIBRARY_PATH"] = before


def _write_torchscript(exported: ExportedProgram, path: Path) -> None:
    """Write a program that C++ calls with a list of tensors, and that returns one, or a tuple of them."""
    script = torchscript_module(exported, flat_results=True)
    with torchscript_calls():
        script.save(str(path))


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _constants(exported: ExportedProgram, program: Path) -> dict[str, torch.Tensor]:
    """Return the tensors that the compiled program asks for, by the names that it uses."""
    values = {**exported.constants, **exported.state_dict}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loader = torch._inductor.aoti_load_package(str(program)).loader
        names: list[str] = loader.get_constant_fqns()
    except RuntimeError as error:
        raise CompileError(
            f"AOTInductor compiled the program, but it does not load: {_first_line(error)} Compile it with "
            "another C++ compiler, which the environment variable CXX names: one of the kind that PyTorch "
            "was built with."
        ) from error
    missing = [name for name in names if not isinstance(values.get(name), torch.Tensor)]
    if missing:
        raise TRTError(
            f"the compiled program needs the constants {missing}, which the exported program does "
            "not have as tensors."
        )
    return {name: values[name] for name in names}


def _plans(exported: ExportedProgram) -> set[str]:
    """Return the names of the constants that the program gives to engines as plans."""
    signature = exported.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    calls = [node for node in exported.graph.nodes if node.target == OPERATOR]
    if not calls:
        raise TRTError(
            "the program has no engines. Compile it with trt_rt.compile, save that with trt_rt.save, and "
            "package the file. For a program of PyTorch alone, use torch._inductor.aoti_compile_and_package."
        )
    return {names[call.args[1].name] for call in calls}
