"""What a plan's first bytes tell about it."""

from __future__ import annotations

from dataclasses import dataclass

from trt_rt.errors import PlanError

__all__ = ["PlanKind", "identify_plan"]

REFERENCE_MAGIC = b"TRTRTREF"
_TENSORRT_MAGIC = b"ftrt"
_RTX_MAGIC = b"vtrt"
_RTX_VERSION_OFFSET = 24


@dataclass(frozen=True)
class PlanKind:
    """Which TensorRT a plan was built by.

    Attributes
    ----------
    backends : tuple of str
        Backends that can run such a plan, the preferred first; empty for an unknown kind.
    description : str
        In words, for messages.
    version : str
        Of the builder, or "" where the first bytes do not tell.
    """

    backends: tuple[str, ...]
    description: str
    version: str = ""


def identify_plan(plan: bytes | memoryview) -> PlanKind:
    """Read a plan's kind from its first bytes.

    Parameters
    ----------
    plan : bytes or memoryview
        At least its first 28 bytes.

    Returns
    -------
    PlanKind
        With no backends if the first bytes are none that trt_rt knows.

    Raises
    ------
    PlanError
        If the plan is empty.

    Notes
    -----
    ``ftrt`` is named by TensorRT's own error message; ``vtrt`` and the place of the version (four bytes
    at offset 24) were seen in plans of TensorRT-RTX 1.7.1.
    """
    head = bytes(plan[:32])
    if not head:
        raise PlanError("the plan is empty. Check that the file was written completely.")
    if head.startswith(_TENSORRT_MAGIC):
        return PlanKind(("tensorrt", "tensorrt_lean", "tensorrt_dispatch"), "a TensorRT plan")
    if head.startswith(_RTX_MAGIC):
        number = head[_RTX_VERSION_OFFSET : _RTX_VERSION_OFFSET + 4]
        version = ".".join(str(part) for part in number) if len(number) == 4 else ""
        return PlanKind(
            ("tensorrt_rtx",), f"a TensorRT-RTX plan{version and f' of version {version}'}", version
        )
    if head.startswith(REFERENCE_MAGIC):
        return PlanKind(("reference",), "a plan of trt_rt's reference backend")
    return PlanKind((), f"of an unknown kind (it begins with {head[:8]!r})")
