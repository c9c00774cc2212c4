"""The signature of an archive: who wrote it, or at least who knows the secret.

The signature covers the manifest, and the manifest has the SHA-256 of every other record.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from trt_rt.archive.strict_json import Fields, parse
from trt_rt.errors import ArchiveError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["PublicKey", "SigningKey", "check_signature", "signer"]

SigningKey: TypeAlias = "Ed25519PrivateKey | bytes | str | os.PathLike[str]"
"""An Ed25519 key, as an object or as PEM, or a secret for HMAC: bytes, or the path of a file with these."""

PublicKey: TypeAlias = "Ed25519PublicKey | bytes | str | os.PathLike[str]"
"""The public part of an Ed25519 key, as an object or as PEM, or the secret: bytes, or a path."""

_PREFIX = b"trt_rt archive signature 1\n"
_ED25519, _HMAC = "ed25519", "hmac-sha256"
_SHORTEST_SECRET = 16
_LARGEST_KEY = 1 << 20


def signer(key: SigningKey) -> Callable[[bytes], bytes]:
    """Return the function that signs manifests with a key.

    Parameters
    ----------
    key : SigningKey
        The key, which is read now.

    Returns
    -------
    callable
        From a manifest to the record with its signature, as JSON.

    Raises
    ------
    ArchiveError
        The key is of another kind, or the package cryptography is missing.
    OSError
        The file of the key cannot be read.
    """
    found = _key(key, is_private=True)

    def sign(manifest: bytes) -> bytes:
        if isinstance(found, bytes):
            algorithm, signature = _HMAC, _hmac(manifest, found)
        else:
            algorithm, signature = _ED25519, found.sign(_PREFIX + manifest)
        value = {"algorithm": algorithm, "signature": base64.b64encode(signature).decode()}
        return json.dumps(value, sort_keys=True).encode()

    return sign


def check_signature(manifest: bytes, record: bytes | None, key: PublicKey, path: str) -> None:
    """Check who signed a manifest.

    Parameters
    ----------
    manifest : bytes
        The record.
    record : bytes, optional
        The record with the signature; None if the archive has none.
    key : PublicKey
        The key.
    path : str
        The file, for messages.

    Raises
    ------
    ArchiveError
        There is no signature, or one of another key, or the key is of another kind.
    OSError
        The file of the key cannot be read.
    """
    found = _key(key, is_private=False)
    wanted = _HMAC if isinstance(found, bytes) else _ED25519
    if record is None:
        raise ArchiveError(
            f"{path} is not signed, and public_key= asks for a signature. Save it again with signing_key=."
        )
    fields = Fields(parse(record, f"{path}, its signature"), f"{path}, its signature")
    algorithm = fields.get("algorithm", str)
    if algorithm != wanted:
        raise ArchiveError(f"{path} is signed with {algorithm!r}, and the given key is one for {wanted!r}.")
    try:
        signature = base64.b64decode(fields.get("signature", str), validate=True)
    except binascii.Error as error:
        raise ArchiveError(f"{path}: its signature is not base64: {error}.") from error
    if not _is_right(manifest, signature, found):
        raise ArchiveError(
            f"{path}: the signature does not fit. The file was changed after it was signed, or it was signed "
            "with another key. Do not use it."
        )


def _is_right(manifest: bytes, signature: bytes, key: Any) -> bool:
    if isinstance(key, bytes):
        return hmac.compare_digest(signature, _hmac(manifest, key))
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, _PREFIX + manifest)
    except InvalidSignature:
        return False
    return True


def _hmac(manifest: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, _PREFIX + manifest, hashlib.sha256)


def _key(given: Any, *, is_private: bool) -> Any:
    """An Ed25519 key of the wanted part, or the bytes of a secret."""
    if isinstance(given, (str, os.PathLike)):
        given = _read_key(Path(given))
    if isinstance(given, bytes):
        if not given.lstrip().startswith(b"-----BEGIN"):
            if len(given) < _SHORTEST_SECRET:
                raise ArchiveError(
                    f"the secret for a signature has {len(given)} bytes, and must have at least "
                    f"{_SHORTEST_SECRET}: use secrets.token_bytes(32)."
                )
            return given
        given = _from_pem(given, is_private=is_private)
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise _needs_cryptography() from error
    wanted = ed25519.Ed25519PrivateKey if is_private else ed25519.Ed25519PublicKey
    if not isinstance(given, wanted):
        raise ArchiveError(
            f"a key of type {type(given).__name__} cannot {'sign' if is_private else 'check'} an archive: "
            "give "
            f"an {wanted.__name__}, its PEM, or the bytes of a secret."
        )
    return given


def _read_key(path: Path) -> bytes:
    """Read the file of a key, which may be a pipe. A device such as /dev/zero would never end."""
    with path.open("rb") as file:
        content = file.read(_LARGEST_KEY + 1)
    if len(content) > _LARGEST_KEY:
        raise ArchiveError(f"{path} is no key: it has more than {_LARGEST_KEY} bytes.")
    return content


def _from_pem(pem: bytes, *, is_private: bool) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise _needs_cryptography() from error
    part = "private" if is_private else "public"
    try:
        if is_private:
            return serialization.load_pem_private_key(pem, password=None)
        return serialization.load_pem_public_key(pem)
    except (ValueError, TypeError) as error:
        raise ArchiveError(
            f"the PEM has no {part} key that can be read without a password: {error}."
        ) from error


def _needs_cryptography() -> ArchiveError:
    return ArchiveError(
        "Ed25519 signatures need the package cryptography: pip install 'trt_rt[sign]'. A secret for HMAC "
        "needs "
        "nothing."
    )
