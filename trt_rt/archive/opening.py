"""The checks of a file before anything of it is deserialized: its format, hashes and signature."""

from __future__ import annotations

import platform
import zlib

from torch.export.pt2_archive import constants as pt2

from trt_rt.archive.container import Container
from trt_rt.archive.manifest import MANIFEST, SIGNATURE, Manifest, check_hashes, read_manifest
from trt_rt.archive.signature import PublicKey, check_signature
from trt_rt.archive.torchscript_objects import is_torchscript
from trt_rt.errors import ArchiveError

__all__ = ["check_platform", "open_archive"]

_SMALL = 1 << 20
_CHUNK = 64 << 20
_PORTABLE = ("", "reference")


def open_archive(container: Container, *, verify: bool, public_key: PublicKey | None) -> Manifest | None:
    """Check a file.

    Parameters
    ----------
    container : Container
        The file.
    verify : bool
        Whether to compare records with their hashes; without a manifest, with the checksums of the ZIP file.
    public_key : PublicKey, optional
        Whose signature it must have.

    Returns
    -------
    Manifest or None
        None for a file that ``torch.export.save`` wrote.

    Raises
    ------
    ArchiveError
        The file is not a PT2 archive, is damaged, or is not signed as asked.
    """
    if is_torchscript(container):
        if public_key is not None:
            check_signature(b"", None, public_key, container.path)
        if verify:
            _check_checksums(container)
        return None
    for name, expected in (
        (pt2.ARCHIVE_FORMAT_PATH, pt2.ARCHIVE_FORMAT_VALUE),
        (pt2.ARCHIVE_VERSION_PATH, pt2.ARCHIVE_VERSION_VALUE),
        ("byteorder", "little"),
    ):
        found = container.text(name, _SMALL).strip()
        if found != expected.encode():
            raise ArchiveError(
                f"{container.path}, record {name!r}: it is {found[:20]!r}, and must be {expected!r}."
            )
    manifest, content = read_manifest(container) if MANIFEST in container else (None, b"")
    if public_key is not None:
        signature = container.text(SIGNATURE, _SMALL) if SIGNATURE in container else None
        check_signature(content, signature, public_key, container.path)
    if manifest is None:
        if verify:
            _check_checksums(container)
        return None
    if verify:
        check_hashes(container, manifest.records)
    return manifest


def check_platform(manifest: Manifest, path: str) -> None:
    """Check that engines were built for this platform.

    Raises
    ------
    ArchiveError
        They were built for another.
    """
    here = f"{platform.system()} {platform.machine()}"
    if manifest.backend not in _PORTABLE and manifest.platform != here:
        raise ArchiveError(
            f"{path} was made on {manifest.platform}, and this is {here}. "
            "TensorRT's engines run on the platform that they were built for. Compile the model here."
        )


def _check_checksums(container: Container) -> None:
    for name, record in container.records.items():
        if record.inflated_size is not None:  # compared when it is read
            continue
        content, found = container.view(name), 0
        for start in range(0, len(content), _CHUNK):
            found = zlib.crc32(content[start : start + _CHUNK], found)
        if found != record.crc32:
            raise ArchiveError(
                f"{container.path}, record {name!r}: its checksum does not fit. The file is damaged: copy it "
                "again."
            )
