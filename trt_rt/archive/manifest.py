"""The manifest of an archive: what the file has, where it was made, and the SHA-256 of every record."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trt_rt.archive.container import Container
from trt_rt.archive.strict_json import Fields, parse
from trt_rt.errors import ArchiveError

__all__ = ["MANIFEST", "SIGNATURE", "EngineEntry", "Manifest", "check_hashes", "read_manifest"]

MANIFEST = "extra/trt_rt.json"
SIGNATURE = "extra/trt_rt.signature.json"
_VERSION = 1
_LARGEST = 64 << 20
_DIGEST = re.compile("[0-9a-f]{64}")
_UNLISTED = frozenset({MANIFEST, SIGNATURE})


@dataclass(frozen=True)
class EngineEntry:
    """An engine of the program.

    Attributes
    ----------
    name : str
        Of the program's submodule that runs it.
    record : str
        That has the plan.
    """

    name: str
    record: str


@dataclass(frozen=True)
class Manifest:
    """The manifest of a program's file.

    Attributes
    ----------
    made_with : dict of str to str
        Versions of packages, by name.
    backend : str
        Of the engines; "" without engines.
    tensorrt_version : str
        Of the builder of the engines; "" if it is not known.
    compute_capability : str
        Of the GPU on which the file was written, such as "9.0"; "" for a program of the CPU.
    gpu : str
        The name of that GPU, such as "NVIDIA H200"; "" if it is not known. Where there are several GPUs,
        Torch-TensorRT runs an engine only on one of the name that the engine tells.
    platform : str
        Operating system and processor, such as "Linux x86_64".
    device : str
        "cpu" or "cuda".
    engines : tuple of EngineEntry
        In the order of the program.
    parameters : list of dict, optional
        Of the program's call; None if their names are not known.
    partition : list of dict
        What runs where, for people.
    records : dict of str to (int, str)
        Bytes and SHA-256 of every record but the manifest and its signature.
    """

    made_with: dict[str, str]
    backend: str
    tensorrt_version: str
    compute_capability: str
    gpu: str
    platform: str
    device: str
    engines: tuple[EngineEntry, ...]
    parameters: list[dict[str, Any]] | None = None
    partition: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, tuple[int, str]] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the record."""
        value = {"format": "trt_rt", "version": _VERSION, **asdict(self)}
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def read_manifest(container: Container) -> tuple[Manifest, bytes]:
    """Return the manifest of a file, and the record itself, which a signature covers.

    Raises
    ------
    ArchiveError
        The record is missing, damaged, or of a newer version.
    """
    where = f"{container.path}, record {MANIFEST!r}"
    content = container.text(MANIFEST, _LARGEST)
    fields = Fields(parse(content, where), where)
    if fields.get("format", str) != "trt_rt":
        raise ArchiveError(f"{where}: its format is {fields.values['format']!r}, and must be 'trt_rt'.")
    version = fields.get("version", int)
    if version != _VERSION:
        raise ArchiveError(
            f"{container.path} has format version {version}, and this trt_rt reads {_VERSION}: install the "
            "trt_rt that wrote it, or a newer one, or save the program again."
        )
    made_with = Fields(fields.get("made_with", dict), f"{where}: made_with")
    manifest = Manifest(
        made_with={name: made_with.get(name, str) for name in made_with.values},
        backend=fields.get("backend", str),
        tensorrt_version=fields.get("tensorrt_version", str),
        compute_capability=fields.get("compute_capability", str),
        gpu=fields.get("gpu", str) if "gpu" in fields.values else "",
        platform=fields.get("platform", str),
        device=fields.get("device", str),
        engines=tuple(
            EngineEntry(engine.get("name", str), engine.get("record", str))
            for engine in fields.objects("engines")
        ),
        parameters=fields.get("parameters", list, type(None)),
        partition=fields.get("partition", list),
        records=_records(Fields(fields.get("records", dict), f"{where}: records")),
    )
    _check_names(container, manifest)
    return manifest, content


def _records(fields: Fields) -> dict[str, tuple[int, str]]:
    found = {}
    for name, value in fields.values.items():
        if (
            type(value) is not list
            or [type(item) for item in value] != [int, str]
            or not _DIGEST.fullmatch(value[1])
        ):
            raise ArchiveError(f"{fields.where}: {name!r} must have a number of bytes and a SHA-256.")
        found[name] = (value[0], value[1])
    return found


def _check_names(container: Container, manifest: Manifest) -> None:
    listed, there = manifest.records.keys(), container.records.keys() - _UNLISTED
    if missing := sorted(listed - there):
        raise ArchiveError(
            f"{container.path} has no record {missing[0]!r}, which its manifest names. Copy the file again."
        )
    if unknown := sorted(there - listed):
        raise ArchiveError(
            f"{container.path} has a record {unknown[0]!r} that its manifest does not name: the file was "
            "changed after it was saved."
        )
    for name, (size, _) in manifest.records.items():
        found = container.records[name].size
        if found != size:
            raise ArchiveError(
                f"{container.path}, record {name!r}: it has {found:,} bytes, and {size:,} were saved."
            )


def check_hashes(container: Container, records: Mapping[str, tuple[int, str]]) -> None:
    """Compare every record with the SHA-256 that the manifest has.

    Raises
    ------
    ArchiveError
        One differs.
    """
    for name, (_, expected) in records.items():
        if hashlib.sha256(container.view(name)).hexdigest() != expected:
            raise ArchiveError(
                f"{container.path}, record {name!r}: its SHA-256 is not the one that was saved. The file is "
                "damaged or was changed: copy it again."
            )
