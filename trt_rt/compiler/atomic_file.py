"""Files that are whole or not there at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from trt_rt.errors import CompileError

__all__ = ["write_atomically"]


def write_atomically(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Write a file so that whoever opens it finds the old content or the new, never a part.

    The data goes to a temporary file in the same directory, which takes the place of the old one (as
    ``rename(2)`` does: at once) when all of it is on the disk. A file of that name keeps its permissions;
    a symbolic link stays one and its target is written.

    Parameters
    ----------
    path : str or path-like
        The file. Its directory must exist.
    data : bytes, bytearray or memoryview
        All of its content.

    Raises
    ------
    CompileError
        It cannot be written, for lack of space, say; the file is as it was. The ``OSError`` is the cause.
    """
    target = Path(os.path.realpath(path))
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, _permissions(target))
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        found = "the file of that name is as it was" if target.exists() else "no file was left there"
        raise CompileError(
            f"cannot write {len(data):,} bytes to {os.fspath(path)}: {error.strerror or error}; {found}"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    _sync_directory(target.parent)


def _permissions(target: Path) -> int:
    """Those of the file that is there, else what the process gives to new files."""
    try:
        return target.stat().st_mode & 0o7777
    except FileNotFoundError:
        mask = os.umask(0)  # there is no other way to read it
        os.umask(mask)
        return 0o666 & ~mask


def _sync_directory(directory: Path) -> None:
    """Make the new name outlive a power cut, on file systems that can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
