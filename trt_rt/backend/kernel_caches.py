"""The kernels that TensorRT-RTX has compiled for one engine, kept in files for the next process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trt_rt._core.critical import Gate

__all__ = ["KernelCaches"]


class KernelCaches:
    """The kernel caches of one engine, by file. All contexts over a file share one ``IRuntimeCache``."""

    def __init__(self) -> None:
        self._caches: dict[str, _KernelCache] = {}
        self._gate = Gate()  # not a lock of `threading`: a signal handler may close the engine meanwhile

    def open(self, path: str | os.PathLike[str], create: Callable[[], Any]) -> Any:
        """Return the ``IRuntimeCache`` of a file, and read the file into it at first.

        Parameters
        ----------
        path : path-like
            The file. If it does not exist, the cache is empty.
        create : callable
            Makes an empty cache.

        Raises
        ------
        OSError
            The file cannot be read, or could not be written later.
        """
        return self._gate.run(self._open, os.path.abspath(path), create)

    def _open(self, name: str, create: Callable[[], Any]) -> Any:
        if name not in self._caches:
            self._caches[name] = _KernelCache(name, create())
        return self._caches[name].tensorrt

    def save(self) -> None:
        """Write every cache that has changed since it was read or written.

        Raises
        ------
        OSError
            A file cannot be written. Then it is unchanged.
        """
        self._gate.run(self._save)

    def _save(self) -> None:
        for cache in list(self._caches.values()):
            cache.save()

    def save_or_warn(self) -> None:
        """Save, where an error would hide another one or has no caller to go to."""
        try:
            self.save()
        except OSError as error:
            warnings.warn(
                f"the kernel cache of TensorRT-RTX was not saved: {error}", RuntimeWarning, stacklevel=2
            )

    def clear(self) -> None:
        """Drop the caches, after their execution contexts are gone."""
        self._gate.run(self._caches.clear)


class _KernelCache:
    """One ``IRuntimeCache`` and its file."""

    def __init__(self, name: str, tensorrt: Any) -> None:
        from trt_rt.backend.atomic_file import check_writable  # only settings with a file need it

        check_writable(name)
        self.tensorrt = tensorrt
        self._name = name
        try:
            self._in_file = Path(name).read_bytes()
        except FileNotFoundError:
            self._in_file = b""
        if self._in_file and not tensorrt.deserialize(self._in_file):
            warnings.warn(
                f"TensorRT-RTX does not accept the kernel cache {name!r}: it is damaged, or from another "
                "GPU, driver or version. The kernels are compiled again, and the file is replaced.",
                RuntimeWarning,
                stacklevel=2,
            )
            self._in_file = b""

    def save(self) -> None:
        serialized = self.tensorrt.serialize()
        content = b"" if serialized is None else bytes(serialized)
        if content and content != self._in_file:
            from trt_rt.backend.atomic_file import write_atomically

            write_atomically(self._name, content)
            self._in_file = content
