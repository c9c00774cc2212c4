"""The key of a compilation: two that give the same program, and only those, have the same."""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from trt_rt.backend import Backend
from trt_rt.compiler import BuildOptions

__all__ = ["program_key"]

_PACKAGES = ("trt_rt", "torch", "onnx", "onnxscript")
"""Their versions decide what is exported and built; asked for without importing them."""

_WITHOUT_EFFECT = ("timing_cache", "progress")
"""Options that change how long a build takes."""


def program_key(
    program: ExportedProgram,
    backend: Backend,
    device: torch.device,
    options: BuildOptions,
    settings: Sequence[Any],
    *,
    with_modules: bool,
) -> str:
    """Return the key of a compilation, as hexadecimal digits.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        As PyTorch has exported it: its graph with the arguments of every operator, the shapes and dtypes of
        all values, and its weights. What is made of that depends on versions and settings only.
    backend : Backend
        That builds: name and version.
    device : torch.device
        A GPU counts by its compute capability.
    options : BuildOptions
        Of the engines.
    settings : sequence
        What else decides: anything whose repr is the same in every process.
    with_modules : bool
        Whether the submodule that an operator belongs to decides something.
    """
    versions = {package: _version(package) for package in _PACKAGES}
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    described = {name: value for name, value in vars(options).items() if name not in _WITHOUT_EFFECT}
    surroundings = [versions, backend.name, backend.version, backend.release, device.type, capability]
    key = hashlib.sha256()
    key.update(json.dumps([surroundings, described, list(settings)], default=repr, sort_keys=True).encode())
    ranges = program.range_constraints
    key.update(repr(sorted((str(symbol), str(limits)) for symbol, limits in ranges.items())).encode())
    call = program.call_spec
    key.update(repr((call.in_spec, call.out_spec, str(program.graph_signature))).encode())
    key.update(repr([_described(example) for example in tree_leaves(program.example_inputs)]).encode())
    for line in _graph(program.graph_module, with_modules):
        key.update(line.encode())
    for name, value in sorted(_values(program).items()):
        key.update(repr((name, _described(value))).encode())
        if isinstance(value, torch.Tensor):
            key.update(_bytes(value))
    return key.hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _graph(module: GraphModule, with_modules: bool) -> Iterator[str]:
    """Every node with its arguments and value; graphs that operators take, too."""
    for node in module.graph.nodes:
        values = [_described(value) for value in tree_leaves(node.meta.get("val"))]
        owners = _owners(node) if with_modules else ""
        yield f"{node.format_node()} {node.args} {node.kwargs} {values} {owners}\n"
        branch = getattr(module, str(node.target), None) if node.op == "get_attr" else None
        if isinstance(branch, GraphModule):
            yield from _graph(branch, with_modules)


def _owners(node: Node) -> list[str]:
    stack = node.meta.get("nn_module_stack") or {}
    return [f"{path} {kind}" for path, kind in stack.values()]


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)} {value.stride()} {value.device.type}"
    return repr(value)


def _values(program: ExportedProgram) -> dict[str, Any]:
    """The weights and constants, and those of graphs that operators take."""
    found: dict[str, Any] = {**program.state_dict, **program.constants}
    for path, module in program.graph_module.named_modules():
        if path:
            found.update(
                {f"{path}.{name}": tensor for name, tensor in module.named_parameters(recurse=False)}
            )
            found.update({f"{path}.{name}": tensor for name, tensor in module.named_buffers(recurse=False)})
    return found


def _bytes(tensor: torch.Tensor) -> Any:
    """The memory of a dense tensor, without a copy where it is on the CPU and contiguous."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return repr(tensor).encode() if tensor.numel() else b""
    dense = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    # The buffer keeps no reference, so it is read at once, while `dense` is alive.
    return bytes((ctypes.c_char * dense.nbytes).from_address(dense.data_ptr()))
