"""A plan's kind and version, from its first bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from trt_rt.errors import PlanError

__all__ = ["PlanKind", "identify_plan"]

REFERENCE_MAGIC = b"TRTRTREF"
_TENSORRT_MAGIC = b"ftrt"
_RTX_MAGIC = b"vtrt"

# Magic, serialization version, two words of unknown use, the plan's length, the builder's version.
_HEADER = struct.Struct("<4sIIIQ4B")
_KNOWN_SERIALIZATION_VERSION = 0
_REFERENCE_HEADER = struct.Struct("<8sI")


@dataclass(frozen=True)
class PlanKind:
    """The kind and version of a plan.

    Attributes
    ----------
    backends : tuple of str
        Backends that can run such a plan, the preferred one first; empty for an unknown kind.
    description : str
        The kind in words, for messages.
    version : tuple of int
        The builder's version as four numbers; empty if the first bytes do not tell it. For a reference plan,
        the version of its format.
    """

    backends: tuple[str, ...]
    description: str
    version: tuple[int, ...] = ()

    @property
    def version_text(self) -> str:
        """The version with dots, or "" if it is unknown."""
        return ".".join(str(number) for number in self.version)


def identify_plan(plan: bytes | memoryview) -> PlanKind:
    """Read a plan's kind from its first bytes.

    Parameters
    ----------
    plan : bytes or memoryview
        The whole plan.

    Returns
    -------
    PlanKind
        A kind without backends if trt_rt does not know the first bytes.

    Raises
    ------
    PlanError
        The plan is empty or truncated.

    Notes
    -----
    For ``--getPlanVersionOnly``, NVIDIA's trtexec reads ``ftrt``, serialization version 0, and the builder's
    version in four bytes at offset 24. Plans of TensorRT-RTX 1.7.1 were seen to have ``vtrt``, the same
    offsets, and the plan's length in eight bytes at offset 16. It is not known whether plans of TensorRT have
    a length there, so trt_rt does not read it.
    """
    head = bytes(plan[:64])
    if not head:
        raise PlanError("the plan is empty. Check that the file was written completely.")
    if head.startswith(_TENSORRT_MAGIC):
        version, _ = _read_header(head, "a TensorRT plan")
        return _kind(("tensorrt", "tensorrt_lean", "tensorrt_dispatch"), "a TensorRT plan", version)
    if head.startswith(_RTX_MAGIC):
        version, length = _read_header(head, "a TensorRT-RTX plan")
        if len(plan) < length:
            raise PlanError(
                f"the plan is a TensorRT-RTX plan of {length:,} bytes, but has only {len(plan):,}: "
                "it is truncated. Check that the file was written and copied completely."
            )
        return _kind(("tensorrt_rtx",), "a TensorRT-RTX plan", version)
    if head.startswith(REFERENCE_MAGIC):
        numbers = _REFERENCE_HEADER.unpack_from(head)[1:] if len(head) >= _REFERENCE_HEADER.size else ()
        return PlanKind(("reference",), "a plan of trt_rt's reference backend", numbers)
    return PlanKind((), f"of an unknown kind (it begins with {head[:8]!r})")


def _read_header(head: bytes, what: str) -> tuple[tuple[int, ...], int]:
    """Return version and length; the version is () if the header has an unknown layout."""
    if len(head) < _HEADER.size:
        raise PlanError(
            f"the plan begins like {what} and has only {len(head)} bytes: it is truncated. Check that the "
            "file was written and copied completely."
        )
    _, serialization_version, _, _, length, *version = _HEADER.unpack_from(head)
    if serialization_version != _KNOWN_SERIALIZATION_VERSION:
        return (), 0
    return tuple(version), length


def _kind(backends: tuple[str, ...], description: str, version: tuple[int, ...]) -> PlanKind:
    kind = PlanKind(backends, description, version)
    return PlanKind(backends, f"{description} of version {kind.version_text}", version) if version else kind
