"""TensorRT's timing cache: timings that one build measures and later builds reuse."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trt_rt.backend.atomic_file import write_atomically
from trt_rt.compiler.options import TimingCache

__all__ = ["attach_timing_cache", "store_timing_cache"]

_log = logging.getLogger("trt_rt.compiler")


def attach_timing_cache(holder: TimingCache, config: Any, backend: str) -> None:
    """Give the builder the timings in `holder`, to use and to add to.

    Parameters
    ----------
    holder : path or bytearray
        A file, which need not exist, or a bytearray, which may be empty. A cache that TensorRT does not
        accept (it is corrupt, or from another GPU or version) is ignored, with a logged warning.
    config : IBuilderConfig
        The configuration that receives the cache.
    backend : str
        The name of the backend in messages.
    """
    content = _read(holder)
    with _warnings_logged(backend):
        if content and _set(content, config):
            return
        if content:
            _log.warning(
                "%s refuses the timing cache %s (%d bytes: it is corrupt, or of another version or GPU); the "
                "build starts without, and the cache is written anew",
                backend,
                _name(holder),
                len(content),
            )
        if not _set(b"", config):
            _log.warning("%s makes no timing cache; the build goes on without", backend)


def _set(content: bytes, config: Any) -> bool:
    cache = config.create_timing_cache(content)
    return cache is not None and bool(config.set_timing_cache(cache, ignore_mismatch=False))


def store_timing_cache(holder: TimingCache, config: Any, backend: str) -> None:
    """Write the timings of a build back to `holder`. A file is replaced atomically.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    with _warnings_logged(backend):
        cache = config.get_timing_cache()
        if cache is None:
            return
        content = bytes(cache.serialize())
    if isinstance(holder, bytearray):
        holder[:] = content
    else:
        write_atomically(holder, content)


def _read(holder: TimingCache) -> bytes:
    if isinstance(holder, bytearray):
        return bytes(holder)
    try:
        return Path(holder).read_bytes()
    except FileNotFoundError:
        return b""


def _name(holder: TimingCache) -> str:
    return "in memory" if isinstance(holder, bytearray) else os.fspath(holder)


@contextmanager
def _warnings_logged(backend: str) -> Iterator[None]:
    """Log the warnings of the bindings.

    TensorRT-RTX warns that its timing cache does nothing. Where warnings are errors, as in many test suites,
    the exception would be raised inside the bindings.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        _log.warning("%s says of its timing cache: %s", backend, message)
