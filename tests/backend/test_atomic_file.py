"""write_atomically: the new file or the old one, whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import isolated
from trt_rt.compiler import write_atomically


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_file_is_made_and_replaced(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "a.plan"
    for content in (b"first", b"second, and longer", b""):
        write_atomically(path, kind(content))
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_whoever_has_the_old_file_open_reads_it_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    write_atomically(str(path), b"old" * 1000)
    with path.open("rb") as reader:
        assert reader.read(3) == b"old"
        write_atomically(path, b"new")
        assert reader.read() == b"old" * 999


def test_permissions_are_those_of_the_old_file_or_the_process(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", b"")
    finally:
        os.umask(mask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    (tmp_path / "new").chmod(0o604)
    write_atomically(tmp_path / "new", b"more")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o604


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to("target")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.plan"
    with pytest.raises(FileNotFoundError, match=r"cannot write 3 bytes: No such file .*; no file") as caught:
        write_atomically(path, b"abc")
    assert caught.value.filename == str(path)


def test_without_space_the_old_file_stays_whole(tmp_path: Path) -> None:
    # A limit on the size of files is the one way to fill a disk that every machine has; the write fails
    # after a part was written, as on a full disk.
    path = tmp_path / "a.plan"
    path.write_bytes(b"old" * 100)
    code = """
    import errno, resource, signal, sys
    from trt_rt.compiler import write_atomically
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        write_atomically(sys.argv[1], bytes(100_000))
    except OSError as error:
        print(error.errno == errno.EFBIG, error)
    """
    printed = isolated.printed_by(code, path)
    assert (
        "True [Errno 27] cannot write 100,000 bytes: File too large; the old file is unchanged: "
        f"{str(path)!r}\n" == printed
    )
    assert path.read_bytes() == b"old" * 100
    assert list(tmp_path.iterdir()) == [path]
