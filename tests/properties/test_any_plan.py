"""Whatever a plan's bytes are: a trt_rt exception, or an engine that is right."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.examples import examples
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import Engine, TRTModule
from trt_rt.errors import BackendError, PlanError, TRTError

PLANS = {"affine": plans.affine, "two": plans.two, "shapes": plans.shape_tensor, "weights": plans.streaming}
MAGICS = [b"ftrt", b"vtrt", b"TRTRTREF", b"TRTRTREF\x01\x00\x00\x00\x00\x00\x00\x00", b""]
PREFIX = 64  # bytes, of which the last 32 are the checksum of all that follows


Load = Callable[..., Engine]


@pytest.fixture(params=["bytes", "file"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Load:
    """``load(content, backend="auto")`` from memory, or from a file that is mapped."""
    if request.param == "bytes":
        return Engine.from_bytes
    path = tmp_path / "any.plan"

    def from_file(content: bytes, **options: str) -> Engine:
        path.write_bytes(content)
        return Engine.load(path, **options)

    return from_file


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="trt_rt.tensorrt")  # there are thousands of refusals


def check(load: Load, content: bytes, **options: str) -> None:
    """It is refused, or gives an engine over which modules can be made and called."""
    with contextlib.suppress(PlanError, BackendError):
        use(load(content, **options))


def use(engine: Engine) -> None:
    engine.inspect()
    engine.serialize()
    with contextlib.suppress(TRTError):
        module = TRTModule(engine)
        module(
            *[
                torch.ones([3 if size == -1 else size for size in tensor.shape], dtype=tensor.dtype)
                for tensor in engine.inputs
            ]
        )
    engine.close()


@pytest.fixture(autouse=True)
def _still_good() -> Iterator[None]:
    yield
    x = torch.randn(3, 7)
    torch.testing.assert_close(TRTModule(plans.affine())(x), eager_affine(x))


@given(kind=st.sampled_from(list(PLANS)), share=st.floats(0, 1, exclude_max=True))
@examples(100)
def test_truncated(load: Load, kind: str, share: float) -> None:
    plan = PLANS[kind]()
    content = plan[: int(len(plan) * share)]
    with pytest.raises(PlanError):
        load(content)
    check(load, content)


@given(
    kind=st.sampled_from(list(PLANS)),
    flips=st.lists(st.tuples(st.integers(0), st.integers(0, 7)), min_size=1, max_size=4),
)
@examples(150)
def test_flipped_bits(load: Load, kind: str, flips: list[tuple[int, int]]) -> None:
    content = bytearray(PLANS[kind]())
    for position, bit in flips:
        content[position % len(content)] ^= 1 << bit
    check(load, bytes(content))


@given(position=st.integers(0, PREFIX - 1), bit=st.integers(0, 7))
@examples(100)
def test_flipped_bits_of_the_prefix(load: Load, position: int, bit: int) -> None:
    content = bytearray(plans.affine())
    content[position] ^= 1 << bit
    with pytest.raises(PlanError):
        load(bytes(content), backend="reference" if position < 8 else "auto")
    check(load, bytes(content))


@given(
    magic=st.sampled_from(MAGICS),
    rest=st.binary(max_size=300),
    backend=st.sampled_from(["auto", "reference"]),
)
@examples(150)
def test_random_bytes(load: Load, magic: bytes, rest: bytes, backend: str) -> None:
    check(load, magic + rest, backend=backend)


@given(
    kind=st.sampled_from(list(PLANS)),
    other=st.sampled_from(list(PLANS)),
    cut=st.floats(0, 1),
    tail=st.binary(max_size=70),
)
@examples(60)
def test_spliced(load: Load, kind: str, other: str, cut: float, tail: bytes) -> None:
    one, two = PLANS[kind](), PLANS[other]()
    check(load, one[: int(len(one) * cut)] + two[int(len(two) * cut) :] + tail)


# Plans by someone who knows the checksum.


def signed(header: bytes, weights: bytes, plan: bytes) -> bytes:
    header += b" " * (-len(header) % 64)
    content = header + weights
    lengths = len(header).to_bytes(8, "little") + len(weights).to_bytes(8, "little")
    return plan[:16] + lengths + hashlib.sha256(content).digest() + content


def parts(plan: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(plan[16:24], "little")
    return plan[PREFIX : PREFIX + length], plan[PREFIX + length :]


def test_signing_is_as_the_format_says() -> None:
    for make in PLANS.values():
        plan = make()
        assert signed(*parts(plan), plan) == plan


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.sampled_from([-(2**63), 2**63, 2**31, 10**30, 1.5]),
    st.text(max_size=4), st.just([]), st.just({}), st.lists(st.integers(-2, 9), max_size=3),
    st.sampled_from(["x", "torch.float32", "float32", "aten.relu.default", "input", "host"]),
)  # fmt: skip


@given(kind=st.sampled_from(list(PLANS)), data=st.data())
@examples(400)
def test_hostile_headers(load: Load, kind: str, data: st.DataObject) -> None:
    plan = PLANS[kind]()
    text, weights = parts(plan)
    header = json.loads(text)
    for _ in range(data.draw(st.integers(1, 2))):
        node = header
        while True:  # walk to a random place
            keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            child = node[key]
            if isinstance(child, (dict, list)) and child and data.draw(st.integers(0, 5)):
                node = child
                continue
            action = data.draw(st.sampled_from(["replace", "delete", "double"]))
            if action == "delete":
                del node[key]
            elif action == "double" and isinstance(node, list):
                node.insert(key, child)
            else:
                node[key] = data.draw(VALUES)
            break
    check(load, signed(json.dumps(header).encode(), weights, plan))


@given(kind=st.sampled_from(["weights"]), weights=st.binary(max_size=200), keep=st.integers(0, 2))
@examples(40)
def test_hostile_weights(load: Load, kind: str, weights: bytes, keep: int) -> None:
    plan = PLANS[kind]()
    text, original = parts(plan)
    check(load, signed(text, original[: len(original) * keep // 2] + weights, plan))


@given(
    text=st.one_of(
        st.binary(max_size=100),
        st.sampled_from([b"[" * 10_000, b"{}", b"[]", b"null", b'{"a":NaN}', b"\xff"]),
    )
)
@examples(60)
def test_hostile_json(load: Load, text: bytes) -> None:
    check(load, signed(text, b"", plans.affine()))
