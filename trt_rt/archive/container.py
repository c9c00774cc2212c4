"""The container of an archive: a ZIP file with uncompressed records, read strictly from a memory map.

PyTorch reads the same container, so it is a ZIP file. A ZIP file can say one thing in its directory and
another in front of each record, hide bytes between records, and unpack to any size. This reader refuses all
of that: records are stored as they are, follow one another without gaps and overlaps, and have one name each.
The source code in a TorchScript file is compressed. Such records can be read only with a limit on their size.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import struct
import zlib
from dataclasses import dataclass

from trt_rt.errors import ArchiveError

__all__ = ["ALIGNMENT", "Container", "Record", "is_container"]

ALIGNMENT = 64
"""Bytes. Records of ours begin at multiples of it, so that tensors and plans can be used where they are."""

LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_ENTRY = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END_64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR_64 = struct.Struct("<4sIQI")
_LOCAL_MAGIC, _ENTRY_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END_64_MAGIC, _LOCATOR_64_MAGIC, _DESCRIPTOR_MAGIC = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"

_IN_EXTRA_16, _IN_EXTRA_32 = 0xFFFF, 0xFFFFFFFF
_HAS_DESCRIPTOR, _IS_UTF8 = 0x8, 0x800
_STORED, _DEFLATED = 0, 8
_COMPRESSED_FOLDER = "code/"
"""Of the records that may be compressed: PyTorch compresses those of TorchScript's source code."""

_MOST_RECORDS = 100_000
_LONGEST_NAME = 512
_NAME = re.compile(r"[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*")


@dataclass(frozen=True)
class Record:
    """Where a record lies.

    Attributes
    ----------
    offset, size : int
        Of its content in the file, in bytes.
    crc32 : int
        As the directory tells it.
    inflated_size : int or None
        Of a compressed record after decompression; None for a record that is stored as it is.
    """

    offset: int
    size: int
    crc32: int
    inflated_size: int | None = None


def is_container(start: bytes | memoryview) -> bool:
    """Return whether a file that begins so is a ZIP file."""
    return bytes(start[:4]) == _LOCAL_MAGIC


class Container:
    """A file of records, mapped into memory and not copied.

    Parameters
    ----------
    path : path-like
        The file.
    content : memoryview, optional
        Read this instead; `path` then only names it in messages.

    Attributes
    ----------
    path : str
        The file, for messages.
    size : int
        Of the file, in bytes.
    records : dict of str to Record
        Without the folder that all names begin with, in the order of the file.

    Raises
    ------
    ArchiveError
        The file is not a ZIP file, or not one as PyTorch writes them.
    OSError
        The file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], *, content: memoryview | None = None) -> None:
        self.path = os.fspath(path)
        self._content = self._map() if content is None else content
        self.size = len(self._content)
        if self.size < _END.size:
            raise self._damaged(f"it has {self.size} bytes, and the smallest archive has more")
        self.records = self._read_directory()

    def _map(self) -> memoryview:
        with open(self.path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ArchiveError(f"{self.path} is not a regular file, and an archive must be one.")
            if not status.st_size:  # cannot be mapped
                return memoryview(b"")
            # Unmapped when nothing refers to it any more.
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def __contains__(self, name: str) -> bool:
        return name in self.records

    def view(self, name: str) -> memoryview:
        """Return the content of a record where it lies in the map.

        Raises
        ------
        ArchiveError
            There is no such record, or it is compressed.
        """
        record = self._record(name)
        if record.inflated_size is not None:
            raise self._damaged(f"the record {name!r} is compressed, and must be stored as it is")
        return self._content[record.offset : record.offset + record.size]

    def _record(self, name: str) -> Record:
        record = self.records.get(name)
        if record is None:
            raise ArchiveError(
                f"{self.path} has no record {name!r}, which every program has. Check that the file was "
                "written by trt_rt.save or torch.export.save, and copied completely."
            )
        return record

    def text(self, name: str, largest: int) -> bytes:
        """Return the content of a small record, after a look at its checksum.

        Parameters
        ----------
        name : str
            The record.
        largest : int
            Bytes that it may have.

        Raises
        ------
        ArchiveError
            There is no such record, it is too large, or its checksum does not fit.
        """
        record = self._record(name)
        size = record.size if record.inflated_size is None else record.inflated_size
        if size > largest:
            raise ArchiveError(
                f"{self.path}, record {name!r}: it has {size:,} bytes, and at most {largest:,} are allowed."
            )
        content = self._content[record.offset : record.offset + record.size]
        if record.inflated_size is not None:
            content = memoryview(self._inflated(name, content, size))
        if zlib.crc32(content) != self.records[name].crc32:
            raise self._damaged(f"the checksum of record {name!r} does not fit its content")
        return bytes(content)

    def _inflated(self, name: str, content: memoryview, size: int) -> bytes:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            found = inflater.decompress(content, size + 1)
        except zlib.error as error:
            raise self._damaged(f"the record {name!r} cannot be decompressed") from error
        if len(found) != size or not inflater.eof or inflater.unused_data:
            raise self._damaged(f"the record {name!r} does not have the size that the directory tells")
        return found

    def _damaged(self, what: str) -> ArchiveError:
        return ArchiveError(
            f"{self.path} is not an archive, or it is damaged: {what}. Check that it was written and copied "
            "completely."
        )

    def _read_directory(self) -> dict[str, Record]:
        count, start, end = self._find_directory()
        if count > _MOST_RECORDS:
            raise self._damaged(f"it has {count:,} records, and at most {_MOST_RECORDS:,} are allowed")
        records: dict[str, Record] = {}
        position, next_header = start, 0
        root: str | None = None
        for _ in range(count):
            if position + _ENTRY.size > end:
                raise self._damaged("its directory is cut off")
            name, record, header, position = self._read_entry(position)
            folder, _, rest = name.partition("/")
            root = folder if root is None else root
            if folder != root or not rest:
                raise self._damaged(f"the record {name!r} is not in the folder {root!r} of the others")
            if rest in records:
                raise self._damaged(f"the record {rest!r} is there twice")
            if header != next_header:
                raise self._damaged(
                    f"the record {rest!r} does not follow the one before it: they overlap, or there is "
                    "something between them"
                )
            next_header = record.offset + record.size + self._descriptor_size(record, header)
            if next_header > start:
                raise self._damaged(f"the record {rest!r} reaches beyond the end of the records")
            records[rest] = record
        if position != end or next_header != start:
            raise self._damaged("there is something between its records and its directory, or after it")
        return records

    def _find_directory(self) -> tuple[int, int, int]:
        """The number of records, and where the directory begins and ends."""
        end_record = self.size - _END.size
        magic, disk, directory_disk, here, count, length, start, comment = _END.unpack_from(
            self._content, end_record
        )
        if magic != _END_MAGIC or comment:
            raise self._damaged("it does not end as a ZIP file does")
        limit = end_record
        locator = end_record - _LOCATOR_64.size
        if locator >= 0 and bytes(self._content[locator : locator + 4]) == _LOCATOR_64_MAGIC:
            _, locator_disk, end_64, disks = _LOCATOR_64.unpack_from(self._content, locator)
            if locator_disk or disks != 1 or end_64 + _END_64.size != locator:
                raise self._damaged("the end of its directory is not where it should be")
            magic, size, _, _, disk, directory_disk, here, count, length, start = _END_64.unpack_from(
                self._content, end_64
            )
            if magic != _END_64_MAGIC or size != _END_64.size - 12:
                raise self._damaged("the end of its directory is corrupted")
            limit = end_64
        if disk or directory_disk or here != count or not count:
            raise self._damaged("it has no records, or is one of several files")
        if start + length != limit:
            raise self._damaged("its directory is not where it should be")
        return count, start, limit

    def _read_entry(self, position: int) -> tuple[str, Record, int, int]:
        """One entry of the directory: name, record, where its header is, where the next entry is."""
        entry = _ENTRY.unpack_from(self._content, position)
        magic, _, _, flags, method, _, _, crc32, packed, size, name_length, extra_length, comment, disk = (
            entry[:14]
        )
        offset = entry[16]
        names = position + _ENTRY.size
        following = names + name_length + extra_length
        if magic != _ENTRY_MAGIC or comment or disk or following > self.size or name_length > _LONGEST_NAME:
            raise self._damaged("an entry of its directory is corrupted")
        name = self._name(names, name_length)
        is_deflated = method == _DEFLATED and name.partition("/")[2].startswith(_COMPRESSED_FOLDER)
        if (method != _STORED and not is_deflated) or flags & ~(_HAS_DESCRIPTOR | _IS_UTF8):
            raise self._damaged(
                f"the record {name!r} is compressed or encrypted, and records are stored as they are"
            )
        extra = self._content[names + name_length : following]
        size, packed, offset = self._large_sizes(extra, (size, packed, offset), name)
        if packed != size and not is_deflated:
            raise self._damaged(f"the record {name!r} has two sizes, {size:,} and {packed:,}")
        start = self._content_start(name, (flags, method), (crc32, packed, size), offset)
        return name, Record(start, packed, crc32, size if is_deflated else None), offset, following

    def _name(self, start: int, length: int) -> str:
        try:
            name = bytes(self._content[start : start + length]).decode("ascii")
        except UnicodeDecodeError:
            name = ""
        parts = name.split("/")
        if not _NAME.fullmatch(name) or "." in parts or ".." in parts:
            raise self._damaged(
                "the name of a record is not one of letters, digits and - _ . + with / between folders"
            )
        return name

    def _large_sizes(self, extra: memoryview, sizes: tuple[int, int, int], name: str) -> tuple[int, int, int]:
        """Sizes and offset, of which those that need more than 32 bits are in the field 1 of `extra`."""
        if _IN_EXTRA_32 not in sizes:
            return sizes
        position = 0
        while position + 4 <= len(extra):
            kind, length = struct.unpack_from("<HH", extra, position)
            if kind == 1:
                values = extra[position + 4 : position + 4 + length]
                found = iter(struct.unpack(f"<{len(values) // 8}Q", values[: len(values) // 8 * 8]))
                result = [next(found, -1) if value == _IN_EXTRA_32 else value for value in sizes]
                if min(result) < 0:
                    break
                return result[0], result[1], result[2]
            position += 4 + length
        raise self._damaged(f"the size of the record {name!r} is missing")

    def _content_start(
        self, name: str, kind: tuple[int, int], told: tuple[int, int, int], offset: int
    ) -> int:
        """Where a record's content begins, after its own header, which must tell what the directory does."""
        if offset + LOCAL_HEADER.size > self.size:
            raise self._damaged(f"the record {name!r} begins beyond the end of the file")
        magic, _, flags, method, _, _, crc32, packed, size, name_length, extra_length = (
            LOCAL_HEADER.unpack_from(self._content, offset)
        )
        names = offset + LOCAL_HEADER.size
        own = bytes(self._content[names : names + name_length])
        if magic != _LOCAL_MAGIC or (flags, method) != kind or own != name.encode():
            raise self._damaged(f"the header of the record {name!r} is corrupted")
        if not flags & _HAS_DESCRIPTOR and (
            crc32 != told[0] or packed not in (told[1], _IN_EXTRA_32) or size not in (told[2], _IN_EXTRA_32)
        ):
            raise self._damaged(f"the header of the record {name!r} contradicts the directory")
        return int(names + name_length + extra_length)

    def _descriptor_size(self, record: Record, header: int) -> int:
        """Bytes after a record in which PyTorch's writer repeats its sizes."""
        flags = LOCAL_HEADER.unpack_from(self._content, header)[2]
        if not flags & _HAS_DESCRIPTOR:
            return 0
        end = record.offset + record.size
        size = record.size if record.inflated_size is None else record.inflated_size
        for layout in (struct.Struct("<4sIQQ"), struct.Struct("<4sIII")):
            if end + layout.size > self.size:
                continue
            found = layout.unpack_from(self._content, end)
            if found == (_DESCRIPTOR_MAGIC, record.crc32, record.size, size):
                return layout.size
        raise self._damaged("the sizes after a record contradict the directory")
