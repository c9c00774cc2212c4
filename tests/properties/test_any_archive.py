"""Whatever happens to the bytes of a file: it is refused, or it holds the same records."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.archive.saved import MANIFEST, MODEL, exported_counting, forge, records_of, write_records
from tests.properties.examples import examples
from trt_rt.archive import load, save
from trt_rt.archive.container import Container
from trt_rt.archive.opening import open_archive
from trt_rt.errors import ArchiveError, PlanError

SIGNATURE = "extra/trt_rt.signature.json"

pytestmark = pytest.mark.behaviour(28)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("any") / "program.pt2"
    save(exported_counting(), path, signing_key=b"0123456789abcdef")
    return path


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)  # there are thousands of refusals


def _checked_records(path: Path) -> dict[str, bytes]:
    """What `load` takes from a file. All that it does with a file depends on these alone."""
    container = Container(path)
    open_archive(container, verify=True, public_key=None)
    return {name: bytes(container.view(name)) for name in container.records}


@pytest.mark.parametrize("flip", [0xFF, 0x01])
def test_every_byte_flipped(saved: Path, tmp_path: Path, flip: int) -> None:
    path = tmp_path / "a.pt2"
    content = saved.read_bytes()
    expected = _checked_records(saved)
    path.write_bytes(content)
    file = os.open(path, os.O_WRONLY)
    same = 0
    try:
        for position, byte in enumerate(content):
            os.pwrite(file, bytes([byte ^ flip]), position)
            with contextlib.suppress(ArchiveError):
                found = _checked_records(path)
                # The signature is compared only with a key; no record but it may have changed.
                found[SIGNATURE] = expected[SIGNATURE]
                assert found == expected, position
                same += 1
            os.pwrite(file, bytes([byte]), position)
    finally:
        os.close(file)
    # Dates, and the bytes that align records, tell nothing.
    assert same < len(content) / 8


def test_every_length_cut(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    content = saved.read_bytes()
    path.write_bytes(content)
    for length in range(len(content) - 1, -1, -1):
        os.truncate(path, length)
        with pytest.raises(ArchiveError):
            load(path)


def test_bytes_added(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    for added in (b"\x00", b"PK\x05\x06" + bytes(18), saved.read_bytes()):
        path.write_bytes(saved.read_bytes() + added)
        with pytest.raises(ArchiveError):
            load(path)


_OTHER: dict[str, Any] = {
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "longer": lambda content: content + b" ",
    "json": lambda content: b"{}",
    "list": lambda content: b"[]",
    "reversed": lambda content: content[::-1],
}


@pytest.mark.parametrize("kind", _OTHER)
def test_every_record_replaced(saved: Path, tmp_path: Path, kind: str) -> None:
    records = records_of(saved)
    for name, content in records.items():
        other = _OTHER[kind](content)
        if other == content:
            continue
        changed = {**records, name: other}
        write_records(tmp_path / "a.pt2", changed)
        with contextlib.suppress(ArchiveError):
            load(tmp_path / "a.pt2", public_key=b"0123456789abcdef")
            assert (name, kind) == (SIGNATURE, "longer")  # a space after JSON means nothing
        # Whoever replaces a record on purpose brings the hashes up to date.
        if name != MANIFEST:
            with contextlib.suppress(ArchiveError, PlanError):
                load(forge(changed, tmp_path / "a.pt2"))


def test_every_record_missing(saved: Path, tmp_path: Path) -> None:
    records = records_of(saved)
    for name in records:
        write_records(tmp_path / "a.pt2", {key: content for key, content in records.items() if key != name})
        with pytest.raises(ArchiveError):
            load(tmp_path / "a.pt2", public_key=b"0123456789abcdef")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=4,
)


class _Place:
    """A value of another place, which is more often of the right form."""

    def __init__(self, path: tuple[Any, ...]) -> None:
        self._path = path

    def value(self, found: Any) -> Any:
        for key in self._path:
            found = found[key]
        return found


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += _places(item, (*path, key))
    return found


@pytest.mark.parametrize("record", [MODEL, MANIFEST, "data/weights/model_weights_config.json"])
def test_any_value_in_json(saved: Path, tmp_path: Path, record: str) -> None:
    records = records_of(saved)
    value = json.loads(records[record])
    places = [place for place in _places(value) if place]

    @examples(100)
    @given(st.sampled_from(places), _JSON | st.sampled_from(places).map(_Place))
    def check(place: tuple[Any, ...], other: Any) -> None:
        changed = json.loads(records[record])
        owner = changed
        for key in place[:-1]:
            owner = owner[key]
        if isinstance(other, _Place):
            other = other.value(json.loads(records[record]))
        owner[place[-1]] = other
        with contextlib.suppress(ArchiveError, PlanError):
            content = {**records, record: json.dumps(changed).encode()}
            load(forge(content, tmp_path / "a.pt2"), eager=False)

    check()
