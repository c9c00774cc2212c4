"""Writes the container of an archive."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Iterable
from typing import IO, Any

from trt_rt.archive.container import ALIGNMENT, LOCAL_HEADER

__all__ = ["ContainerWriter"]

_ROOT = "archive"
_WHEN = (1980, 1, 1, 0, 0, 0)
_LIMIT = zipfile.ZIP64_LIMIT
_LARGE_SIZES = 20
"""Bytes that `zipfile` adds to the header of a record that may be larger than 2 GiB."""

_PADDING = 0x4246
"""The kind of the extra field with which PyTorch's own writer aligns records."""


class ContainerWriter:
    """Writes records one after the other; the same records give the same bytes.

    A context manager: it writes the directory when its block ends without an error.

    Parameters
    ----------
    file : binary file
        Written from its beginning. It must be seekable.

    Attributes
    ----------
    digests : dict of str to (int, str)
        Of the records written so far: bytes, and SHA-256 in hexadecimal.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True)
        self.digests: dict[str, tuple[int, str]] = {}

    def write(self, name: str, size: int, chunks: Iterable[bytes | memoryview]) -> str:
        """Write a record.

        Parameters
        ----------
        name : str
            Of the record, without the folder that all names begin with.
        size : int
            Of the content, in bytes.
        chunks : iterable of bytes
            The content.

        Returns
        -------
        str
            The SHA-256 of the content, in hexadecimal.
        """
        is_large = size * 1.05 > _LIMIT
        entry = zipfile.ZipInfo(f"{_ROOT}/{name}", _WHEN)
        entry.file_size = size
        entry.create_system = 3
        start = self._file.tell() + LOCAL_HEADER.size + len(entry.filename) + 4 + _LARGE_SIZES * is_large
        padding = -start % ALIGNMENT
        entry.extra = struct.pack("<HH", _PADDING, padding) + b"Z" * padding
        digest = hashlib.sha256()
        with self._zip.open(entry, "w", force_zip64=is_large) as record:
            for chunk in chunks:
                digest.update(chunk)
                record.write(chunk)
        self.digests[name] = (size, digest.hexdigest())
        return digest.hexdigest()

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a small record."""
        self.write(name, len(content), [content])

    def __enter__(self) -> ContainerWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is None:
            self._zip.close()
        else:
            self._zip.fp = None  # when it is collected, it would write a directory into the closed file
