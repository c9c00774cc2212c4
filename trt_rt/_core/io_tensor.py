"""An engine's description of its I/O tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from trt_rt._core.dynamo import hide_from_dynamo

if TYPE_CHECKING:
    import torch

__all__ = ["IOTensor", "ProfileRange"]


@dataclass(frozen=True)
class ProfileRange:
    """The range that one optimization profile allows for one input.

    Attributes
    ----------
    min, opt, max : tuple of int
        Dimensions, or the values of a shape tensor.
    """

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def admits(self, sizes: tuple[int, ...]) -> bool:
        """Return whether `sizes` has as many entries as the range and each is within it."""
        return len(sizes) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, sizes, self.max, strict=True)
        )

    def __str__(self) -> str:
        return f"{list(self.min)} to {list(self.max)}"


@dataclass(frozen=True)
class IOTensor:
    """One I/O tensor of an engine.

    Attributes
    ----------
    name : str
        The tensor's name in the engine, which may contain any character.
    mode : {"input", "output"}
        The direction.
    dtype : torch.dtype
        The element type.
    shape : tuple of int
        The dimensions; -1 for a dimension that is known only at run time.
    location : {"device", "host"}
        "host" for a shape tensor, whose values the engine reads or writes in host memory.
    format : str
        TensorRT's name of the memory layout. "LINEAR" is contiguous and row-major.
    profiles : tuple of ProfileRange
        For an input, one range for each profile: allowed shapes, or allowed values of a shape tensor. Empty
        for an output, and for an input that no profile restricts.
    aliased_input : str or None
        The name of the input whose memory this output uses; None for other outputs and for inputs.
    """

    name: str
    mode: Literal["input", "output"]
    dtype: torch.dtype
    shape: tuple[int, ...]
    location: Literal["device", "host"] = "device"
    format: str = "LINEAR"
    profiles: tuple[ProfileRange, ...] = field(default=())
    aliased_input: str | None = None

    @property
    def is_dynamic(self) -> bool:
        """Whether a dimension is known only at run time."""
        return -1 in self.shape

    @property
    def is_shape_tensor(self) -> bool:
        """Whether the tensor's values are in host memory."""
        return self.location == "host"

    def __str__(self) -> str:
        dimensions = ", ".join("?" if size == -1 else str(size) for size in self.shape)
        place = " in host memory" if self.is_shape_tensor else ""
        return f"{self.name!r}: {self.dtype}[{dimensions}]{place}"


hide_from_dynamo(globals())
