"""The file format of a reference plan: a fixed prefix, a JSON header, raw weights.

=========  =====  ==================================================================
offset     bytes  content
=========  =====  ==================================================================
0          8      ``TRTRTREF``
8          4      format version, little-endian like every number here
12         4      reserved, 0
16         8      length of the header, a multiple of 64
24         8      length of the weights
32         32     SHA-256 of everything that follows
64                header: JSON, UTF-8, padded with spaces
64 + ...          weights; each begins at a multiple of 64 bytes
=========  =====  ==================================================================

JSON and raw numbers cannot carry code, so reading a plan runs no code from it. The SHA-256 finds damage; it
is no signature.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from trt_rt.errors import PlanError

__all__ = ["ALIGNMENT", "FORMAT_VERSION", "PLAN_MAGIC", "aligned", "aligned_copy", "pack", "unpack"]

PLAN_MAGIC = b"TRTRTREF"
"""The first bytes of every reference plan."""

FORMAT_VERSION = 3

ALIGNMENT = 64
"""Bytes. PyTorch aligns tensors on the CPU so, and weights can be used where they are in the plan."""

_PREFIX = struct.Struct("<8sIIQQ32s")
_LARGEST_HEADER = 64 << 20
_MOST_VALUES = 2_000_000


def aligned(size: int) -> int:
    """Round a number of bytes up to a multiple of :data:`ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def aligned_copy(plan: memoryview) -> memoryview:
    """Copy a plan to memory that begins at a multiple of :data:`ALIGNMENT`, which aligns its weights."""
    memory = bytearray(len(plan) + ALIGNMENT)
    start = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % ALIGNMENT
    copy = memoryview(memory)[start : start + len(plan)]
    copy[:] = plan
    return copy


def pack(header: dict[str, Any], weights: Sequence[bytes | memoryview]) -> bytes:
    """Return a plan.

    Parameters
    ----------
    header : dict
        Values that JSON can express, without NaN and infinities.
    weights : sequence of bytes
        Written one after the other, each padded to a multiple of 64 bytes.

    Returns
    -------
    bytes
        The plan.
    """
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    parts: list[bytes | memoryview] = [text, b" " * (aligned(len(text)) - len(text))]
    for weight in weights:
        parts += [weight, bytes(aligned(len(weight)) - len(weight))]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    header_length = aligned(len(text))
    weights_length = sum(aligned(len(weight)) for weight in weights)
    prefix = _PREFIX.pack(PLAN_MAGIC, FORMAT_VERSION, 0, header_length, weights_length, digest.digest())
    return b"".join([prefix, *parts])


def unpack(plan: memoryview) -> tuple[dict[str, Any], memoryview]:
    """Split a plan into its header and its weights.

    Parameters
    ----------
    plan : memoryview
        The plan's bytes.

    Returns
    -------
    header : dict
        Parsed, but not checked.
    weights : memoryview
        A view of `plan`.

    Raises
    ------
    PlanError
        The plan is of another kind or version, truncated, corrupted, or its header is not JSON.
    """
    if len(plan) < _PREFIX.size:
        raise PlanError(f"the plan has {len(plan)} bytes; a reference plan has at least {_PREFIX.size}")
    magic, version, reserved, header_length, weights_length, digest = _PREFIX.unpack_from(plan)
    if magic != PLAN_MAGIC:
        raise PlanError(f"the plan begins with {magic!r}, not {PLAN_MAGIC!r}: it is not a reference plan")
    if version != FORMAT_VERSION:
        raise PlanError(
            f"the plan has format version {version}, this trt_rt reads {FORMAT_VERSION}: build it again"
        )
    if reserved or header_length % ALIGNMENT or header_length > _LARGEST_HEADER:
        raise PlanError("the plan's first 64 bytes are corrupted")
    length = _PREFIX.size + header_length + weights_length
    if length != len(plan):
        raise PlanError(
            f"the plan should have {length} bytes and has {len(plan)}: it is truncated or corrupted"
        )
    if hashlib.sha256(plan[_PREFIX.size :]).digest() != digest:
        raise PlanError("the plan's checksum does not fit its content: it is corrupted")
    weights_start = _PREFIX.size + header_length
    return _parse_header(bytes(plan[_PREFIX.size : weights_start])), plan[weights_start:]


def _parse_header(text: bytes) -> dict[str, Any]:
    # Every value but the first follows one of these characters. A parsed value takes up to 80 times the bytes
    # of its text, so a limit on the length of the text alone would not bound the memory.
    values = sum(text.count(character) for character in (b",", b"[", b"{"))
    if values > _MOST_VALUES:
        raise PlanError(f"the plan's header has {values} values, more than {_MOST_VALUES}")
    try:
        header = json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"the plan's header is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise PlanError("the plan's header is not a JSON object")
    return header


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
