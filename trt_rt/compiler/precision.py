"""The precision of an engine's arithmetic.

TensorRT 11 and TensorRT-RTX build strongly typed networks only, whose engines compute in the dtypes of the
model. So trt_rt casts the model to reach another precision, on every TensorRT. A model that is already
exported cannot be cast. For such models TensorRT 10 still has the builder flags of weakly typed networks.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Set
from typing import TYPE_CHECKING, Any

import torch

from trt_rt._core.dtype_name import dtype_name
from trt_rt.backend import Backend
from trt_rt.compiler.options import BuildOptions
from trt_rt.errors import CompileError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["cast_module", "program_dtypes", "weak_typing_flag"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_FLAGS = {"fp16": "FP16", "bf16": "BF16"}


def cast_module(module: torch.nn.Module, precision: str) -> torch.nn.Module:
    """Return a module that computes in another precision and has the same signature.

    Parameters
    ----------
    module : torch.nn.Module
        The module. It is not changed: parameters and buffers that must be cast are copied.
    precision : {"fp32", "fp16", "bf16", "strong"}
        "strong" returns the module itself.

    Returns
    -------
    torch.nn.Module
        A module whose floating-point parameters and buffers have the precision. It takes inputs of any dtype
        and casts them, and it casts its outputs to the dtype that the parameters had.
    """
    if precision == "strong":
        return module
    dtype = _DTYPES[precision]
    state = [*module.parameters(), *module.buffers()]
    own_dtypes = [tensor.dtype for tensor in state if tensor.is_floating_point()]
    if all(own == dtype for own in own_dtypes) and (own_dtypes or precision == "fp32"):
        return module
    output_dtype = own_dtypes[0] if own_dtypes else torch.float32
    cast = copy.deepcopy(module).to(dtype)
    forward = cast.forward

    # torch.export names the inputs after the signature, which `wraps` keeps.
    @functools.wraps(forward)
    def forward_in_precision(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = _map_floating((args, kwargs), lambda tensor: tensor.to(dtype))
        outputs = forward(*args, **kwargs)
        return _map_floating(
            outputs, lambda tensor: tensor.to(output_dtype) if tensor.dtype == dtype else tensor
        )

    cast.forward = forward_in_precision
    return cast


def program_dtypes(program: ExportedProgram) -> set[torch.dtype]:
    """Return the floating-point types of an exported program's weights and inputs."""
    tensors = [*program.state_dict.values(), *torch.utils._pytree.tree_leaves(program.example_inputs)]
    return {
        tensor.dtype for tensor in tensors if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
    }


def weak_typing_flag(backend: Backend, options: BuildOptions, dtypes: Set[torch.dtype], what: str) -> Any:
    """Return the builder flag that builds a model, which cannot be cast, in another precision.

    Parameters
    ----------
    backend : Backend
        The backend of the build.
    options : BuildOptions
        The options of the build, with the precision.
    dtypes : set of torch.dtype
        The floating-point types of the model.
    what : str
        The name of the model in messages.

    Returns
    -------
    BuilderFlag or None
        None if the model has that precision already, so that a strongly typed network computes in it.

    Raises
    ------
    CompileError
        The model has other types and this TensorRT has no such flag, or the flag contradicts an option.
    """
    precision = options.precision
    if precision == "strong" or dtypes <= {_DTYPES[precision]}:
        return None
    found = ", ".join(sorted(dtype_name(dtype) for dtype in dtypes))
    flags = getattr(backend.api, "BuilderFlag", None)
    flag = getattr(flags, _FLAGS.get(precision, ""), None)
    if flag is None:
        raise CompileError(
            f"precision={precision!r}: {what} computes in {found}, and {backend.name} {backend.version} "
            "builds strongly typed networks, which compute in the dtypes of the model. Give build the "
            f"torch.nn.Module, which it can cast, export the model in {precision}, or leave the precision out"
        )
    if options.weight_streaming:
        raise CompileError(
            f"weight_streaming=True needs a strongly typed network, and precision={precision!r} of {what}, "
            f"which computes in {found}, a weakly typed one: give build the torch.nn.Module"
        )
    return flag


def _map_floating(tree: Any, function: Any) -> Any:
    def cast(leaf: Any) -> Any:
        return function(leaf) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    return torch.utils._pytree.tree_map(cast, tree)
