"""Defines the operator's schema, and its shapes for PyTorch's tracers.

The module layer adds the kernel that runs engines.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt.errors import InputTypeError, InputValueError

if TYPE_CHECKING:
    from trt_rt.operator.expressions import Size
    from trt_rt.operator.meta import EngineMeta

__all__ = ["OPERATOR", "register_kernel"]

_LIBRARY = torch.library.Library("trt_rt", "FRAGMENT")

# A process has one definition and one kernel: the C++ runtime's if its library was loaded first, else these.
# A library that is loaded later finds this module, and leaves the operator alone.
_IS_DEFINED_HERE = not hasattr(torch.ops.trt_rt, "execute_engine")
if _IS_DEFINED_HERE:
    _LIBRARY.define(
        "execute_engine(Tensor[] inputs, Tensor plan, str meta) -> Tensor[]",
        tags=(torch.Tag.pt2_compliant_tag,),
    )
    # Engines have no gradients. Without this, PyTorch looks through the arguments of each call for those that
    # require gradients, and makes results that fail, or are wrong, in a backward pass.
    _LIBRARY.impl("execute_engine", torch.library.fallthrough_kernel, "Autograd")
OPERATOR: Any = torch.ops.trt_rt.execute_engine.default


def register_kernel(kernel: Callable[..., list[torch.Tensor]]) -> None:
    """Make a function the operator's kernel on every device, unless the C++ runtime's kernel is there.

    Parameters
    ----------
    kernel : callable
        Takes the operator's arguments.
    """
    if _IS_DEFINED_HERE:
        _LIBRARY.impl("execute_engine", kernel, "CompositeExplicitAutograd")


@functools.lru_cache(maxsize=256)
def _parse(meta: str) -> EngineMeta:
    from trt_rt.operator.meta import EngineMeta  # `import trt_rt` need not wait for it

    return EngineMeta.parse(meta)


def _fake(inputs: Sequence[torch.Tensor], plan: torch.Tensor, meta: str) -> list[torch.Tensor]:
    """Return results without values; the engine is not loaded."""
    description = _parse(meta)
    sizes = description.bind_symbols([tensor.shape for tensor in inputs])
    for tensor, wanted in zip(inputs, description.inputs, strict=True):
        if tensor.dtype != wanted.dtype:
            raise InputTypeError(f"input {wanted.name!r} needs {wanted.dtype}; got {tensor.dtype}.")
    position = description.device_input
    device = inputs[position].device if position is not None else torch.device(description.device or "cpu")
    without_values = _is_without_values(inputs, plan, description)
    found: dict[str, Any] = {}
    results = []
    for output, shape in zip(description.outputs, description.output_sizes, strict=True):
        size: Any
        actual = []
        for size in shape:
            if callable(size):
                actual.append(_evaluated(size, sizes, output.name))
            elif isinstance(size, int):
                actual.append(size)
            else:
                if size not in found:
                    found[size] = torch.library.get_ctx().new_dynamic_size()
                actual.append(found[size])
        where = torch.device("cpu") if output.is_host else device
        if without_values:
            where = torch.device("meta")
        results.append(torch.empty(actual, dtype=output.dtype, device=where))
    return results


def _is_without_values(inputs: Sequence[torch.Tensor], plan: torch.Tensor, description: EngineMeta) -> bool:
    """Return whether this is a call on the meta device, and not one of a tracer with fake tensors.

    Raises
    ------
    InputValueError
        Only some of the tensors are on the meta device: results on another device would have no values.
    """
    from torch._subclasses.fake_tensor import FakeTensor  # `import trt_rt` need not wait for it

    plain = [tensor for tensor in (*inputs, plan) if not isinstance(tensor, FakeTensor)]
    if not any(tensor.is_meta for tensor in plain):
        return False
    for tensor, wanted in zip(inputs, description.inputs, strict=True):
        if not (tensor.is_meta or wanted.is_host):
            raise InputValueError(
                f"input {wanted.name!r} is on {tensor.device}, and the plan or another input is on the meta "
                "device, where tensors have no values. Load the program's weights (plans are among them) "
                "before it is called."
            )
    return True


def _evaluated(size: Size, sizes: dict[str, Any], name: str) -> Any:
    try:
        value = size(sizes)
    except ZeroDivisionError:
        value = -1
    if type(value) is int and not 0 <= value < 2**63:
        raise InputValueError(f"output {name!r} has no shape for inputs with the sizes {sizes}.")
    return value


torch.library.register_fake("trt_rt::execute_engine", _fake, lib=_LIBRARY)

hide_from_dynamo(globals())
