"""Compiled programs on disk: one file for each, in a folder that several processes share."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_rt.compiler import write_atomically
from trt_rt.errors import CompileError

__all__ = ["CacheEntry", "CachedEngine", "CachedProgram", "ProgramCache", "cache_folder"]

_log = logging.getLogger("trt_rt.compiler")

DEFAULT_LIMIT_BYTES = 8 << 30
_MAGIC = b"trt_rt program 2"
_SUFFIX = ".program"
_KERNELS = ".kernels"
_LOCKS = 64
_DIGEST_BYTES = 32

_ABANDONED_SECONDS = 3600
"""A temporary file that nobody has written to for so long belongs to a process that was killed."""


@dataclass(frozen=True)
class CachedEngine:
    """An engine of a program.

    Attributes
    ----------
    name : str
        In the program.
    nodes : tuple of str
        Names of its operators in the model's functional graph, in order.
    plan : bytes
        The engine.
    """

    name: str
    nodes: tuple[str, ...]
    plan: bytes


@dataclass(frozen=True)
class CachedProgram:
    """What is kept of a program. Its weights come from the model.

    Attributes
    ----------
    graph : str
        JSON of what runs: engines, and PyTorch operators between them.
    operators : tuple of str
        Names of the operators that the graph may call besides the usual ones.
    engines : tuple of CachedEngine
        In the order in which they run.
    partition : list
        Its steps as JSON, without lines of the model.
    origins : dict
        Of operators in PyTorch, by name: the node of the exported model that has the operator's line.
    written : tuple of str
        Buffers of the model that the program writes to.
    """

    graph: str
    operators: tuple[str, ...]
    engines: tuple[CachedEngine, ...]
    partition: list[dict[str, Any]]
    origins: dict[str, str]
    written: tuple[str, ...]


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache.

    Attributes
    ----------
    key : str
        Its name.
    path : pathlib.Path
        The file.
    size : int
        In bytes, with the kernels that TensorRT-RTX has compiled for it.
    last_used : float
        In seconds, as of `time.time`.
    model : str
        The class of the model; "" if the file is damaged.
    backend : str
        Of its engines; "" if the file is damaged.
    engines : int
        How many there are.
    """

    key: str
    path: Path
    size: int
    last_used: float
    model: str
    backend: str
    engines: int


def cache_folder() -> Path | None:
    """Return the folder of the user's cache: ``$TRT_RT_CACHE_DIR``, else one under the user's cache folder.

    None if the package platformdirs is missing and the variable is not set.
    """
    given = os.environ.get("TRT_RT_CACHE_DIR")
    if given:
        return Path(given)
    try:
        import platformdirs
    except ImportError:
        _log.info("programs are not kept on disk: that needs the package platformdirs")
        return None
    return Path(platformdirs.user_cache_dir("trt_rt", appauthor=False)) / "programs"


class ProgramCache:
    """A folder of compiled programs.

    Files are written under another name and then renamed, so that whoever opens one finds all of it. A file
    that was changed or cut since is noticed by its hash and removed. The files used least recently go when
    the folder is over its limit.

    Parameters
    ----------
    folder : pathlib.Path
        Made when it is needed.
    limit_bytes : int
        Of all files together.
    """

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes

    def load(self, key: str) -> CachedProgram | None:
        """Return a program; None if there is none, or none that is whole, which is logged as a warning."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("the cached program %s cannot be read and is built again: %s", path, error)
            return None
        try:
            header, plans = _unpack(content)
            engines = tuple(
                CachedEngine(str(one["name"]), tuple(one["nodes"]), plan)
                for one, plan in zip(header["engines"], plans, strict=True)
            )
            program = CachedProgram(
                str(header["graph"]),
                tuple(header["operators"]),
                engines,
                list(header["partition"]),
                dict(header["origins"]),
                tuple(header["written"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            self.discard(key, error)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return program

    def discard(self, key: str, reason: Exception) -> None:
        """Remove a program that cannot be used, which is logged as a warning."""
        path = self._path(key)
        _log.warning("the cached program %s is damaged (%s) and is built again", path, reason)
        with contextlib.suppress(OSError):
            path.unlink()

    def store(self, key: str, program: CachedProgram, *, model: str, backend: str) -> None:
        """Keep a program; a folder that cannot be written is logged as a warning and is no error."""
        header = {
            "model": model,
            "backend": backend,
            "engines": [
                {"name": engine.name, "nodes": engine.nodes, "bytes": len(engine.plan)}
                for engine in program.engines
            ],
            "graph": program.graph,
            "operators": program.operators,
            "partition": program.partition,
            "origins": program.origins,
            "written": program.written,
        }
        content = _pack(header, [engine.plan for engine in program.engines])
        try:
            if len(content) > self._limit_bytes:
                _log.warning(
                    "a program of %d bytes is not kept: the cache's limit is %d",
                    len(content),
                    self._limit_bytes,
                )
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers(_ABANDONED_SECONDS)
            self._make_room(len(content))
            write_atomically(self._path(key), content)
        except (OSError, CompileError) as error:
            _log.warning("the program is not kept in %s: %s", self.folder, error)

    def kernels_of(self, key: str) -> Callable[[str], Path] | None:
        """Return what names the file of an engine's kernels, beside its program.

        None if the program is not here, or if this process could not write to such a file.
        """
        if not self._path(key).exists() or not os.access(self.folder, os.W_OK):
            return None
        return lambda engine: self.folder / f"{key}.{engine}{_KERNELS}"

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Keep other processes from building the same program; they wait, and then find it here.

        Where the folder cannot be written, or the package filelock is missing, nobody waits.
        """
        try:
            import filelock

            self.folder.mkdir(parents=True, exist_ok=True)
            # A number of files that does not grow. Two programs that share one are built one after the other.
            number = int(key[:8], 16) % _LOCKS
            lock = filelock.FileLock(self.folder / f".{number}.lock")
            lock.acquire()
        except (ImportError, OSError, NotImplementedError) as error:
            _log.info("programs in %s are not locked: %s", self.folder, error)
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def entries(self) -> list[CacheEntry]:
        """Return what is in the cache, the last used first."""
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            try:
                status = path.stat()
                key = path.name.removesuffix(_SUFFIX)
                kernels = sum(one.stat().st_size for one in self._kernels(key))
                with open(path, "rb") as file:
                    header = _read_header(file.read(_HEADER_START.size), file.read)
            except OSError:
                continue  # another process has removed it meanwhile
            except ValueError:
                header = {}
            found.append(
                CacheEntry(
                    key=key,
                    path=path,
                    size=status.st_size + kernels,
                    last_used=status.st_mtime,
                    model=str(header.get("model", "")),
                    backend=str(header.get("backend", "")),
                    engines=len(header.get("engines", ())),
                )
            )
        return sorted(found, key=lambda entry: entry.last_used, reverse=True)

    def clear(self) -> tuple[int, int]:
        """Remove all programs and return how many there were, and of how many bytes.

        Raises
        ------
        OSError
            A file cannot be removed.
        """
        entries = self.entries()
        for entry in entries:
            self._remove(entry)
        self._remove_leftovers(older_than=0)
        return len(entries), sum(entry.size for entry in entries)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _kernels(self, key: str) -> list[Path]:
        return list(self.folder.glob(f"{key}.*{_KERNELS}"))

    def _remove(self, entry: CacheEntry) -> None:
        for path in (entry.path, *self._kernels(entry.key)):
            path.unlink(missing_ok=True)

    def _remove_leftovers(self, older_than: float) -> None:
        """Remove what processes that were killed while they wrote have left under temporary names."""
        now = time.time()
        for path in self.folder.glob(".*"):
            if path.suffix == ".lock" or not re.fullmatch(r"\.[0-9a-f]{40}\.[0-9a-f]{16}", path.name):
                continue
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime >= older_than:
                    path.unlink()

    def _make_room(self, wanted: int) -> None:
        entries = self.entries()
        total = sum(entry.size for entry in entries)
        while entries and total + wanted > self._limit_bytes:
            oldest = entries.pop()
            self._remove(oldest)
            total -= oldest.size


_HEADER_START = struct.Struct(f"<{len(_MAGIC)}s{_DIGEST_BYTES}sQ")


def _pack(header: dict[str, Any], plans: Sequence[bytes]) -> bytes:
    text = json.dumps(header).encode()
    body = b"".join([text, *plans])
    start = _HEADER_START.pack(_MAGIC, hashlib.sha256(body).digest(), len(text))
    return start + body


def _read_header(start: bytes, read: Any) -> dict[str, Any]:
    if len(start) != _HEADER_START.size:
        raise ValueError("it is cut off")
    magic, _, length = _HEADER_START.unpack(start)
    if magic != _MAGIC or length > 1 << 30:
        raise ValueError("it is of another kind or version")
    header = json.loads(read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header


def _unpack(content: bytes) -> tuple[dict[str, Any], list[bytes]]:
    if len(content) < _HEADER_START.size:
        raise ValueError("it is cut off")
    magic, digest, length = _HEADER_START.unpack_from(content)
    body = memoryview(content)[_HEADER_START.size :]
    if magic != _MAGIC:
        raise ValueError("it is of another kind or version")
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("its hash is not that of its content")
    header = json.loads(bytes(body[:length]))
    plans, offset = [], length
    for engine in header["engines"]:
        plans.append(bytes(body[offset : offset + engine["bytes"]]))
        offset += engine["bytes"]
    return header, plans
