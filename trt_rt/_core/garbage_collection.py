"""Keeps Python's garbage collector from running in the middle of a capture or of a measurement."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from trt_rt._core.critical import Gate, between
from trt_rt._core.dynamo import hide_from_dynamo

__all__ = ["without_garbage_collection"]

Result = TypeVar("Result")

_gate = Gate()  # of the next two
_owners: set[object] = set()
_was_enabled = False


def without_garbage_collection(function: Callable[[], Result]) -> Result:
    """Call a function while the collector is off; several threads may at once.

    The collector may free an engine or a context on a thread that captures, and CUDA ends a capture whose
    own thread frees device memory (CU_STREAM_CAPTURE_MODE_THREAD_LOCAL). A collection during a measurement
    would be in the time of one call.
    """
    owner = object()
    return between(partial(_gate.run, _begin, owner), function, partial(_gate.run, _end, owner))


def _begin(owner: object) -> None:
    global _was_enabled
    if not _owners:
        _was_enabled = gc.isenabled()
    _owners.add(owner)
    gc.disable()


def _end(owner: object) -> None:
    if _owners == {owner} and _was_enabled:
        gc.enable()
    _owners.discard(owner)  # last: if an interrupt cuts this short, it is called again


hide_from_dynamo(globals())
