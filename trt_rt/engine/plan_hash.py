"""The hash by which a caller says which plan is meant."""

from __future__ import annotations

import hashlib
import re

from trt_rt.errors import PlanError

__all__ = ["check_sha256"]


def check_sha256(plan: bytes, sha256: str, name: str) -> None:
    """Compare the SHA-256 of a plan with the one that its user expects.

    Parameters
    ----------
    plan : bytes
        All of it.
    sha256 : str
        What is expected, in hexadecimal.
    name : str
        The engine's, for messages.

    Raises
    ------
    PlanError
        If they differ.
    ValueError
        If `sha256` is not 64 hexadecimal digits.
    """
    if re.fullmatch("[0-9a-fA-F]{64}", sha256) is None:
        raise ValueError(f"sha256 must be the 64 hexadecimal digits of a SHA-256, not {sha256!r}.")
    found = hashlib.sha256(plan).hexdigest()
    if found != sha256.lower():
        raise PlanError(
            f"engine {name!r}: the SHA-256 of the plan ({len(plan)} bytes) is {found}, and sha256= says "
            f"{sha256.lower()}. The plan was damaged or replaced by another. Copy or build it again, or give "
            "the hash of this one if it is the one you want."
        )
