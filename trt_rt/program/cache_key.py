"""The key of a compilation: two that give the same program, and only those, have the same."""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves

from trt_rt.backend import Backend
from trt_rt.compiler import BuildOptions
from trt_rt.program.exporting import ProgramGraph

__all__ = ["program_key"]

_PACKAGES = ("trt_rt", "torch", "onnx", "onnxscript")
"""Their versions decide what is exported and built; asked for without importing them."""

_WITHOUT_EFFECT = ("timing_cache", "progress")
"""Options that change how long a build takes."""


def program_key(
    program: ProgramGraph,
    backend: Backend,
    device: torch.device,
    options: BuildOptions,
    settings: Sequence[Any],
) -> str:
    """Return the key of a compilation, as hexadecimal digits.

    Parameters
    ----------
    program : ProgramGraph
        Its graph with the arguments of every operator, the shapes and dtypes of all values, and its weights.
    backend : Backend
        That builds: name and version.
    device : torch.device
        A GPU counts by its compute capability.
    options : BuildOptions
        Of the engines.
    settings : sequence
        What else decides: anything whose repr is the same in every process.
    """
    versions = {package: _version(package) for package in _PACKAGES}
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    described = {name: value for name, value in vars(options).items() if name not in _WITHOUT_EFFECT}
    surroundings = [versions, backend.name, backend.version, backend.release, device.type, capability]
    key = hashlib.sha256()
    key.update(json.dumps([surroundings, described, list(settings)], default=repr, sort_keys=True).encode())
    key.update(repr(sorted((str(symbol), str(limits)) for symbol, limits in program.ranges.items())).encode())
    key.update(repr((program.in_spec, program.out_spec, str(program.signature))).encode())
    key.update(repr([_described(example) for example in program.examples]).encode())
    for line in _graph(program.module):
        key.update(line.encode())
    for name, tensor in sorted(_weights(program.module).items()):
        key.update(repr((name, _described(tensor))).encode())
        key.update(_bytes(tensor))
    return key.hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _graph(module: GraphModule) -> Iterator[str]:
    """Every node with its arguments and value; graphs that operators take, too."""
    for node in module.graph.nodes:
        values = [_described(value) for value in tree_leaves(node.meta.get("val"))]
        yield f"{node.format_node()} {node.args} {node.kwargs} {values}\n"
        branch = getattr(module, str(node.target), None) if node.op == "get_attr" else None
        if isinstance(branch, GraphModule):
            yield from _graph(branch)


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)} {value.stride()} {value.device.type}"
    return repr(value)


def _weights(module: GraphModule) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            owner, _, attribute = str(node.target).rpartition(".")
            value = getattr(module.get_submodule(owner), attribute)
            if isinstance(value, torch.Tensor):
                found[str(node.target)] = value
            elif isinstance(value, GraphModule):
                inner = _weights(value)
                found.update({f"{node.target}.{name}": tensor for name, tensor in inner.items()})
    return found


def _bytes(tensor: torch.Tensor) -> Any:
    """The memory of a dense tensor, without a copy where it is on the CPU and contiguous."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return repr(tensor).encode() if tensor.numel() else b""
    dense = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    # The buffer keeps no reference, so it is read at once, while `dense` is alive.
    return bytes((ctypes.c_char * dense.nbytes).from_address(dense.data_ptr()))
