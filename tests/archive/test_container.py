"""The container: what a ZIP file may not be, and what ours is."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archive.saved import forge, records_of
from trt_rt.archive import load
from trt_rt.archive.container import ALIGNMENT, Container
from trt_rt.archive.container_writer import ContainerWriter
from trt_rt.errors import ArchiveError

pytestmark = pytest.mark.behaviour(28)


def _write(path: Path, records: dict[str, bytes]) -> Path:
    with path.open("wb") as file, ContainerWriter(file) as writer:
        for name, content in records.items():
            writer.write_bytes(name, content)
    return path


def test_records_are_aligned_and_read_where_they_lie(tmp_path: Path) -> None:
    records = {f"folder/{number}": bytes([number]) * number for number in range(200)}
    container = Container(_write(tmp_path / "a.zip", records))
    assert {name: bytes(container.view(name)) for name in container.records} == records
    assert {record.offset % ALIGNMENT for record in container.records.values()} == {0}
    assert container.view("folder/5").readonly


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (_write(tmp_path / name, {"a": b"1", "b": b"2"}) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_standard_tools_read_it(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.zip", {"a": b"1" * 100, "b/c": b""})
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}


def _damage(path: Path, names: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in names:
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name",
    ["a/../../etc/passwd", "/etc/passwd", "a/./b", "a\\b", "a//b", "a/é", "a/" + "b" * 600, "a/b c", "a/"],
)
def test_names_outside_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArchiveError, match="damaged"):
        Container(_damage(tmp_path / "a.zip", [(name, b"")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="'b' is there twice"):
        Container(_damage(tmp_path / "a.zip", [("a/b", b"1"), ("a/b", b"2")]))


def test_records_in_two_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="not in the folder"):
        Container(_damage(tmp_path / "a.zip", [("a/b", b"1"), ("c/b", b"2")]))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, method: int) -> None:
    path = _damage(tmp_path / "a.zip", [("a/b", bytes(50 << 20))], method)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ArchiveError, match="compressed"):
        Container(path)


def _claim_size(content: bytearray, entry: int) -> None:
    struct.pack_into("<II", content, entry + 20, 1 << 20, 1 << 20)


def _overlap(content: bytearray, entry: int) -> None:
    struct.pack_into("<I", content, entry + 42, 0)


def _encrypt(content: bytearray, entry: int) -> None:
    struct.pack_into("<H", content, entry + 8, 1)


def _two_sizes(content: bytearray, entry: int) -> None:
    struct.pack_into("<I", content, entry + 20, 1)


def _rename(content: bytearray, entry: int) -> None:
    content[entry + 46 + 2] = ord("z")


def _other_checksum(content: bytearray, entry: int) -> None:
    content[entry + 16] ^= 1


@pytest.mark.parametrize("change", [_claim_size, _overlap, _encrypt, _two_sizes, _rename, _other_checksum])
def test_a_directory_that_contradicts_the_records_is_refused(
    tmp_path: Path, change: Callable[[bytearray, int], None]
) -> None:
    path = _write(tmp_path / "a.zip", {"a": b"1" * 100, "b": b"2" * 100})
    content = bytearray(path.read_bytes())
    change(content, content.rindex(b"PK\x01\x02"))
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged"):
        Container(path)


@pytest.mark.parametrize("where", ["front", "back", "between"])
def test_bytes_outside_of_records_are_refused(tmp_path: Path, where: str) -> None:
    path = _write(tmp_path / "a.zip", {"a": b"1" * 100, "b": b"2" * 100})
    content = path.read_bytes()
    place = {"front": 0, "back": len(content), "between": content.index(b"PK\x01\x02")}[where]
    path.write_bytes(content[:place] + b"hidden" + content[place:])
    with pytest.raises(ArchiveError, match="damaged"):
        Container(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x00" * 1000, b"text" * 100]
)
def test_what_is_not_a_zip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"a\.pt2 is not an archive"):
        load(path)


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="none"):
        load(tmp_path / "none.pt2")


@pytest.mark.parametrize(
    "name",
    [
        "archive_format",
        "archive_version",
        "byteorder",
        "models/model.json",
        "data/weights/model_weights_config.json",
        "data/constants/model_constants_config.json",
    ],
)
def test_a_missing_record_is_named(archive: Path, tmp_path: Path, name: str) -> None:
    records = records_of(archive)
    del records[name]
    with pytest.raises(ArchiveError, match=f"no record '{name}'"):
        load(forge(records, tmp_path / "a.pt2"))


def test_sizes_of_more_than_32_bits_are_read(tmp_path: Path) -> None:
    # A sparse file: the content is a hole.
    path, size = tmp_path / "a.zip", (4 << 30) + 5
    large = 0xFFFFFFFF
    name = b"archive/large"
    header = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 45, 0, 0, 0, 0, 7, large, large, len(name), 20)
    sizes = struct.pack("<HHQQ", 1, 16, size, size)
    entry = struct.pack(
        "<4sHHHHHHIIIHHHHHII",
        b"PK\x01\x02",
        45,
        45,
        0,
        0,
        0,
        0,
        7,
        large,
        large,
        len(name),
        20,
        0,
        0,
        0,
        0,
        0,
    )
    end = len(header) + len(name) + len(sizes) + size
    directory = entry + name + sizes
    end_64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(directory), end)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end + len(directory), 1)
    last = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), large, 0)
    with path.open("wb") as file:
        file.write(header + name + sizes)
        file.seek(end)
        file.write(directory + end_64 + locator + last)
    assert Container(path).records["large"].size == size
