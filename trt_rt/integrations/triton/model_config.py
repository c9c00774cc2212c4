"""A model's config.pbtxt, in the text form of Triton's message ModelConfig.

The fields and their rules are those of Triton's model_config.proto and of its page "Model Configuration". A
test parses what is written here with the message that Triton publishes in the package tritonclient.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from trt_rt.errors import TRTError

__all__ = ["InstanceGroup", "ModelConfig", "ModelTensor"]

_TYPES = {
    torch.bool: "TYPE_BOOL",
    torch.uint8: "TYPE_UINT8",
    torch.int8: "TYPE_INT8",
    torch.int16: "TYPE_INT16",
    torch.int32: "TYPE_INT32",
    torch.int64: "TYPE_INT64",
    torch.float16: "TYPE_FP16",
    torch.bfloat16: "TYPE_BF16",
    torch.float32: "TYPE_FP32",
    torch.float64: "TYPE_FP64",
}


@dataclass(frozen=True)
class ModelTensor:
    """An input or output.

    Attributes
    ----------
    name : str
        As requests and responses name it.
    dtype : torch.dtype
        Of its elements.
    dims : tuple of int
        Its sizes without the batch; -1 for one that varies.
    is_shape_tensor : bool
        Whether TensorRT reads its values in host memory.
    """

    name: str
    dtype: torch.dtype
    dims: tuple[int, ...]
    is_shape_tensor: bool = False


@dataclass(frozen=True)
class InstanceGroup:
    """The instances of a model on each of the server's devices.

    Attributes
    ----------
    device : str
        ``"cuda"`` or ``"cpu"``.
    count : int
        On each device.
    profiles : tuple of int
        The optimization profiles that an instance may use; empty for a model that chooses by itself.
    """

    device: str
    count: int
    profiles: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a model.

    Attributes
    ----------
    name : str
        The model's, which is also that of its folder.
    backend : str
        ``"tensorrt"`` or ``"python"``.
    max_batch_size : int
        The largest batch; 0 for a model without a batch dimension.
    inputs, outputs : tuple of ModelTensor
        Without the batch dimension, if there is one.
    instances : InstanceGroup
        How many there are, and where.
    preferred_batch_sizes : tuple of int
        What Triton tries to reach when it joins requests.
    max_queue_delay_us : int
        How long a request may wait for others, in microseconds.
    """

    name: str
    backend: str
    max_batch_size: int
    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]
    instances: InstanceGroup
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0

    def dumps(self) -> str:
        """Return the text of config.pbtxt."""
        lines = [
            f"name: {_quoted(self.name)}",
            f"backend: {_quoted(self.backend)}",
            f"max_batch_size: {self.max_batch_size}",
        ]
        for tensor in self.inputs:
            lines += _message("input", self._tensor(tensor))
        for tensor in self.outputs:
            lines += _message("output", self._tensor(tensor))
        group = self.instances
        kind = "KIND_GPU" if group.device == "cuda" else "KIND_CPU"
        profiles = [f'profile: "{profile}"' for profile in group.profiles]
        lines += _message("instance_group", [f"count: {group.count}", f"kind: {kind}", *profiles])
        if self.max_batch_size:
            preferred = [f"preferred_batch_size: {size}" for size in self.preferred_batch_sizes]
            delay = [f"max_queue_delay_microseconds: {self.max_queue_delay_us}"]
            lines += _message("dynamic_batching", [*preferred, *delay])
        return "\n".join([*lines, ""])

    def _tensor(self, tensor: ModelTensor) -> Sequence[str]:
        if tensor.dtype not in _TYPES:
            raise TRTError(f"Triton has no type for {tensor.dtype}, which {tensor.name!r} has.")
        dims = [f"dims: {size}" for size in tensor.dims]
        if not dims:
            # Triton wants at least one size. Behind a batch, the server adds and removes a size of 1. Without
            # a batch it cannot, and the Python model does.
            dims = ["dims: 1", *(_message("reshape", []) if self.max_batch_size else [])]
        shape_tensor = ["is_shape_tensor: true"] if tensor.is_shape_tensor else []
        return [f"name: {_quoted(tensor.name)}", f"data_type: {_TYPES[tensor.dtype]}", *dims, *shape_tensor]


def _message(field: str, lines: Iterable[str]) -> list[str]:
    return [f"{field} {{", *(f"  {line}" for line in lines), "}"]


def _quoted(text: str) -> str:
    """Return a string as the text form writes it: bytes of UTF-8, with octal escapes."""
    plain = set(range(0x20, 0x7F)) - {ord('"'), ord("\\")}
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'
