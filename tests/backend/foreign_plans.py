"""Plans of TensorRT and TensorRT-RTX, as far as their first bytes tell."""

from __future__ import annotations

import struct


def plan_of(magic: bytes, *version: int, length: int = 64) -> bytes:
    """The first bytes of a plan that TensorRT or TensorRT-RTX wrote, and nothing behind them."""
    header = struct.pack("<4sIIIQ4B", magic, 0, 2, 0, length, *version)
    return header + bytes(64 - len(header))


TENSORRT_PLAN = plan_of(b"ftrt", 10, 3, 0, 26)
RTX_PLAN = plan_of(b"vtrt", 1, 7, 1, 116)
UNKNOWN_PLAN = b"something else" + bytes(100)
