"""Writing files that are never left half-written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

__all__ = ["check_writable", "open_atomically", "write_atomically"]

_PREFIX_LENGTH = 40
"""Characters of the file's name in that of its temporary file: a name has at most 255 bytes."""


def write_atomically(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Write a file so that a reader finds the old content or the new content, never a part of it.

    The data is written to a temporary file in the same folder. Once all of it is on the disk, the temporary
    file replaces the old one in one step, as ``rename(2)`` does. An existing file keeps its permissions. A
    symbolic link stays a link, and its target is replaced. A pipe or a device cannot be replaced without
    destroying it: the data is written into it.

    Parameters
    ----------
    path : str or path-like
        The file. Its folder must exist.
    data : bytes, bytearray or memoryview
        The whole content.

    Raises
    ------
    OSError
        The file cannot be written, for example because the disk is full. The old file is unchanged, and the
        temporary file is removed. The message says so.
    """
    if _is_special(path):
        _write_into(path, data)
        return
    with _replaced(path, f"{len(data):,} bytes") as file:
        file.write(data)


def open_atomically(path: str | os.PathLike[str]) -> AbstractContextManager[IO[bytes]]:
    """Open a file for writing so that a reader finds the old content or all of the new one.

    Parameters
    ----------
    path : str or path-like
        The file, as for `write_atomically`. It must not be a pipe or a device.

    Returns
    -------
    context manager of a binary file
        A temporary file in the same folder. It replaces the file when the ``with`` block ends, and is removed
        if the block raises.

    Raises
    ------
    OSError
        The file cannot be written. The old file is unchanged. The message says so.
    """
    if _is_special(path):
        raise OSError(errno.EINVAL, "this is a pipe or a device, and a file is needed", os.fspath(path))
    return _replaced(path, "the file")


@contextlib.contextmanager
def _replaced(path: str | os.PathLike[str], what: str) -> Iterator[IO[bytes]]:
    target = Path(os.path.realpath(path))
    temporary: Path | None = None
    try:
        descriptor, temporary = _create_beside(target)
        with open(descriptor, "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(descriptor, target.stat().st_mode & 0o7777)
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    except OSError as error:
        found = "the old file is unchanged" if target.exists() else "no file was left there"
        raise _cannot_write(path, what, error, found) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):  # usually it has replaced the old file
                os.unlink(temporary)
    _sync_directory(target.parent)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise if `write_atomically` cannot write to a path, as far as this can be known before it does.

    Raises
    ------
    OSError
        The path is empty or a folder, its folder is missing, or this process may not write there.
    """
    name = os.fspath(path)
    if not name:
        raise FileNotFoundError(errno.ENOENT, "the name of the file to write is empty")
    if os.path.isdir(name):
        raise IsADirectoryError(
            errno.EISDIR, "this is a folder; give the name of a file in it, such as model.plan", name
        )
    if _is_special(name):
        if not os.access(name, os.W_OK):
            raise PermissionError(errno.EACCES, "this process may not write to it", name)
        return
    folder = os.path.dirname(os.path.realpath(name))
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {folder!r}", name)
    try:
        descriptor, temporary = _create_beside(Path(os.path.realpath(name)))
    except OSError as error:  # whatever rights the process has, only trying tells
        reason = error.strerror or str(error)
        raise OSError(
            error.errno, f"cannot create a file in the folder {folder!r}: {reason}", name
        ) from error
    os.close(descriptor)
    os.unlink(temporary)
    if len(os.fsencode(os.path.basename(name))) > os.pathconf(folder, "PC_NAME_MAX"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)


def _create_beside(target: Path) -> tuple[int, Path]:
    """Create a temporary file in the folder of `target`, with the permissions of new files."""
    # Creating the file with 0o666 applies the umask, which a process with threads cannot safely read.
    path = target.parent / f".{target.name[:_PREFIX_LENGTH]}.{secrets.token_hex(8)}"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Return whether something is at the path that is neither a regular file nor a folder.

    The path itself is asked, and not its real path: ``/dev/stdout`` leads to a pipe that has no name.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _write_into(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    try:
        with open(path, "wb", buffering=0) as file:
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[file.write(rest) :]
    except OSError as error:
        found = "a part may have been written into it"
        raise _cannot_write(path, f"{len(data):,} bytes", error, found) from error


def _cannot_write(path: str | os.PathLike[str], what: str, error: OSError, found: str) -> OSError:
    """Return an error of the same kind as `error` that names the file and what became of it."""
    reason = error.strerror or str(error)
    return OSError(error.errno, f"cannot write {what}: {reason}; {found}", os.fspath(path))


def _sync_directory(directory: Path) -> None:
    """Write the folder to the disk too, so that the new name survives a power cut."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
