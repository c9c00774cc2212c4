"""Signatures: with the right key a file loads, and every change of the file or the key is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch.export import ExportedProgram

from tests.archive.saved import MANIFEST, forge, records_of, write_records
from trt_rt.archive import load, save
from trt_rt.errors import ArchiveError

ed25519 = pytest.importorskip(
    "cryptography.hazmat.primitives.asymmetric.ed25519", reason="the package cryptography is not installed"
)

_SECRET = b"0123456789abcdef"
_SIGNATURE = "extra/trt_rt.signature.json"


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    if hasattr(key, "public_key"):
        pem: bytes = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    else:
        pem = key.public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    return pem


@pytest.fixture(scope="module")
def key() -> Any:
    return ed25519.Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def signed(exported: ExportedProgram, key: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signed") / "program.pt2"
    save(exported, path, signing_key=key)
    return path


@pytest.mark.parametrize("form", ["object", "pem", "path"])
def test_the_right_key(exported: ExportedProgram, key: Any, tmp_path: Path, form: str) -> None:
    private, public = key, key.public_key()
    if form != "object":
        private, public = _pem(private), _pem(public)
    if form == "path":
        (tmp_path / "private.pem").write_bytes(private)
        (tmp_path / "public.pem").write_bytes(public)
        private, public = tmp_path / "private.pem", str(tmp_path / "public.pem")
    save(exported, tmp_path / "a.pt2", signing_key=private)
    load(tmp_path / "a.pt2", public_key=public)


def test_a_secret(exported: ExportedProgram, tmp_path: Path) -> None:
    save(exported, tmp_path / "a.pt2", signing_key=_SECRET)
    load(tmp_path / "a.pt2", public_key=_SECRET)
    load(tmp_path / "a.pt2")
    with pytest.raises(ArchiveError, match="signature does not fit"):
        load(tmp_path / "a.pt2", public_key=_SECRET[::-1])


def test_another_key(signed: Path) -> None:
    with pytest.raises(ArchiveError, match="signature does not fit"):
        load(signed, public_key=ed25519.Ed25519PrivateKey.generate().public_key())
    with pytest.raises(ArchiveError, match="is signed with 'ed25519'"):
        load(signed, public_key=_SECRET)


def test_no_signature(archive: Path, key: Any) -> None:
    with pytest.raises(ArchiveError, match="is not signed"):
        load(archive, public_key=key.public_key())


def test_a_changed_record_with_a_new_hash(signed: Path, key: Any, tmp_path: Path) -> None:
    records = records_of(signed)
    signature = records.pop(_SIGNATURE)
    name = "data/weights/weight_0"
    records[name] = bytes(len(records[name]))
    forge(records, tmp_path / "a.pt2")
    records = {**records_of(tmp_path / "a.pt2"), _SIGNATURE: signature}
    write_records(tmp_path / "a.pt2", records)
    with pytest.raises(ArchiveError, match="signature does not fit"):
        load(tmp_path / "a.pt2", public_key=key.public_key())


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"[]",
        b"{}",
        b'{"algorithm": "none", "signature": ""}',
        b'{"algorithm": "ed25519", "signature": "!"}',
        b'{"algorithm": "ed25519", "signature": ""}',
        b'{"algorithm": "ed25519", "signature": 1}',
    ],
)
def test_a_forged_signature(signed: Path, key: Any, tmp_path: Path, signature: bytes) -> None:
    write_records(tmp_path / "a.pt2", {**records_of(signed), _SIGNATURE: signature})
    with pytest.raises(ArchiveError, match=r"signature|signed"):
        load(tmp_path / "a.pt2", public_key=key.public_key())


def test_without_the_manifest_a_signature_is_worth_nothing(signed: Path, key: Any, tmp_path: Path) -> None:
    records = records_of(signed)
    del records[MANIFEST]
    write_records(tmp_path / "a.pt2", records)
    with pytest.raises(ArchiveError, match="signature"):
        load(tmp_path / "a.pt2", public_key=key.public_key())


def test_a_signature_needs_the_hashes(signed: Path, key: Any) -> None:
    with pytest.raises(ArchiveError, match="verify=True"):
        load(signed, public_key=key.public_key(), verify=False)


def test_keys_of_another_kind(exported: ExportedProgram, key: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    for wrong, message in (
        (b"short", "at least 16"),
        (key.public_key(), "cannot sign"),
        (_pem(key.public_key()), "no private key"),
        (3, "type int"),
    ):
        with pytest.raises(ArchiveError, match=message):
            save(exported, path, signing_key=wrong)
    with pytest.raises(FileNotFoundError):
        save(exported, path, signing_key=tmp_path / "none.pem")
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_tells_the_hash_of_every_record(archive: Path) -> None:
    records = records_of(archive)
    listed = json.loads(records[MANIFEST])["records"]
    assert set(listed) == set(records) - {MANIFEST}
