"""Plans that are truncated, corrupted or made to do harm are refused: None, a logged error, no side effect.

What a plan holds can be changed by anyone who can also write the checksum, so most of these are sealed again
after they have been changed.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.examples import examples
from tests.reference import plans
from tests.reference.harness import RecordingLogger, Session
from trt_rt import reference as trt
from trt_rt.reference.plan_container import FORMAT_VERSION, pack, unpack

PREFIX = 64
Change = Callable[[dict[str, Any]], object]


def load(plan: Any) -> tuple[trt.ICudaEngine | None, list[str]]:
    logger = RecordingLogger()
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    return engine, logger.errors


def assert_refused(plan: Any, reason: str = "") -> None:
    engine, errors = load(plan)
    assert engine is None
    (error,) = errors
    assert error.startswith("IRuntime::deserializeCudaEngine: Error Code ")
    assert reason in error


def sealed(change: Change, plan: bytes | None = None) -> bytes:
    """A plan with another header and a checksum that fits."""
    header, weights = unpack(memoryview(plans.streaming() if plan is None else plan))
    header = copy.deepcopy(header)
    change(header)
    return pack(header, [weights] if len(weights) else [])


def test_an_unchanged_plan_is_loaded() -> None:
    assert sealed(lambda header: None) == plans.streaming()
    engine, errors = load(plans.streaming())
    assert engine is not None
    assert errors == []


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_every_buffer_is_taken(buffer: Callable[[bytes], Any]) -> None:
    assert load(buffer(plans.affine()))[0] is not None


@pytest.mark.parametrize("what", [None, 7, "plan", [1, 2], object()])
def test_what_is_no_buffer(what: object) -> None:
    with pytest.raises(TypeError):
        load(what)


def test_a_buffer_with_gaps() -> None:
    with pytest.raises(TypeError, match="contiguous"):
        load(memoryview(plans.affine())[::2])


@pytest.mark.parametrize("plan", [b"", b"ftrt" + bytes(200), b"vtrt" + bytes(200), b"\x80\x04", bytes(64)])
def test_other_files(plan: bytes) -> None:
    assert_refused(plan)


def test_truncated_anywhere() -> None:
    plan = plans.affine()
    for length in range(len(plan)):
        assert_refused(plan[:length])


def test_truncated_at_every_weight() -> None:
    plan = plans.streaming()
    _, weights = unpack(memoryview(plan))
    for length in range(len(plan) - len(weights), len(plan), 64):
        assert_refused(plan[:length], "truncated")


def test_bytes_left_over() -> None:
    assert_refused(plans.affine() + b"\0", "truncated or corrupted")


@examples(300)
@given(position=st.integers(0, 10**9), flipped=st.integers(1, 255))
def test_any_changed_byte(position: int, flipped: int) -> None:
    plan = bytearray(plans.streaming())
    plan[position % len(plan)] ^= flipped
    assert_refused(plan)


@examples(200)
@given(tail=st.binary(max_size=400))
def test_random_bytes_after_the_magic(tail: bytes) -> None:
    assert_refused(b"TRTRTREF" + tail)


@pytest.mark.parametrize(
    ("offset", "format", "value", "reason"),
    [
        (8, "<I", FORMAT_VERSION + 1, f"format version {FORMAT_VERSION + 1}"),
        (12, "<I", 1, "corrupted"),
        (16, "<Q", 2**64 - 1, "corrupted"),
        (16, "<Q", 2**64 - 64, "corrupted"),
        (24, "<Q", 2**64 - 1, "should have"),
        (24, "<Q", 0, "should have"),
    ],
)
def test_absurd_prefixes(offset: int, format: str, value: int, reason: str) -> None:
    plan = bytearray(plans.streaming())
    struct.pack_into(format, plan, offset, value)
    assert_refused(plan, reason)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"name":' * 50_000,
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"name": NaN}',
        b'{"name": ' + b"9" * 100_000 + b"}",
        b"{}",
    ],
)
def test_headers_that_are_none(text: bytes) -> None:
    assert_refused(headed(text))


def headed(text: bytes) -> bytes:
    """A plan with this header and no weights."""
    text += b" " * (-len(text) % 64)
    prefix = struct.pack("<8sIIQQ", b"TRTRTREF", FORMAT_VERSION, 0, len(text), 0)
    return prefix + hashlib.sha256(text).digest() + text


def set_operator(name: str) -> Change:
    def change(header: dict[str, Any]) -> None:
        header["graph"]["nodes"][0]["operator"] = name

    return change


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "builtins.exec",
        "builtins.__import__",
        "operator.methodcaller",
        "operator.attrgetter",
        "operator.setitem",
        "subprocess.run",
        "torch.load",
        "torch.ops.load_library",
        "torch.compile",
        "aten.from_file.default",
        "aten.from_file.out",
        "aten.add_.Tensor",
        "aten.set_.source_Tensor",
        "aten.resize_.default",
        "aten.as_strided.default",
        "aten._sparse_coo_tensor_unsafe.default",
        "aten._nested_view_from_buffer.default",
        "aten.record_stream.default",
        "aten.__class__.mro",
        "aten.add.__class__",
        "aten.add._op",
        "aten.add.Tensor.__call__",
        "aten.add",
        "aten..",
        "aten.add.Tensor\n",
        "aten.ädd.Tensor",
        "aten.no_such_operator.default",
        "quantized.add.default",
        "profiler._record_function_enter.default",
        "prim.device.default",
        "higher_order.cond",
        "_C._jit_get_operation",
        "",
    ],
)
def test_operators_that_plans_may_not_use(name: str) -> None:
    assert_refused(sealed(set_operator(name)), repr(name)[1:-1].split("\\")[0])


@pytest.mark.parametrize(
    "name",
    [
        "aten._print.default",
        "aten._thnn_differentiable_gru_cell_backward.default",
        "aten.fractional_max_pool3d_backward.default",
        "aten._native_batch_norm_legit.no_stats",
        "aten._convert_indices_from_coo_to_csr.default",
        "aten.range.step",
        "aten.special_laguerre_polynomial_l.n_scalar",
        "aten.linalg_matrix_power.default",
        "aten.combinations.default",
        "aten.embedding_bag.default",
        "aten.set_data.default",
        "prims.svd.default",
    ],
)
def test_operators_that_networks_do_not_need(name: str) -> None:
    assert_refused(sealed(set_operator(name)), f"may not use the operator {name!r}")


X: dict[str, int] = {"value": 0}
FLOAT = {"dtype": "float32"}


@pytest.mark.parametrize(
    ("operator", "args", "kwargs", "reason"),
    [
        ("aten.zeros.default", [[2]], {"dtype": 6}, "'dtype' must be a dtype, not int"),
        ("aten.zeros.default", [[2]], {"dtype": True}, "'dtype' must be a dtype"),
        ("aten.zeros.default", [[2]], {"dtype": FLOAT, "layout": 0}, "'layout' must be a layout"),
        ("aten.zeros.default", [[2]], {"dtype": X}, "'dtype' must be a dtype"),
        ("aten.zeros.default", [[2]], {"device": "cpu"}, "'device' must be a device"),
        ("aten.clone.default", [X], {"memory_format": 1}, "'memory_format' must be a memory format"),
        ("aten._to_copy.default", [X], {"dtype": 2**40}, "'dtype' must be a dtype"),
        ("aten.sum.dim_IntList", [X, [0], 1], {}, "'keepdim' must be a boolean"),
        ("aten.reshape.default", [X, [2**31]], {}, "'shape' is 2147483648"),
        ("aten.max_pool2d.default", [X, [2**20, 1]], {}, "'kernel_size' is 1048576"),
        ("aten.round.decimals", [X], {"decimals": 2**20}, "'decimals' is 1048576"),
        ("aten.upsample_nearest2d.vec", [X, None, [1e30, 1.0]], {}, "'scale_factors' is 1e+30"),
        ("aten.add.Scalar", [X, 2**63], {}, "does not fit into 64 bits"),
        ("aten.reshape.default", [X, [1] * 5000], {}, "5000 elements"),
        ("aten.einsum.default", ["i" * 2000, [X]], {}, "2000 characters"),
        ("aten.relu.default", [], {}, "['self'] are missing"),
        ("aten.relu.default", [X], {"self": X}, "given twice"),
        ("aten.relu.default", [None], {}, "must not be None"),
        ("aten.normal_functional.default", [X], {"generator": 1}, "'generator' must be None"),
        ("operator.getitem", [X, X], {}, "takes a layer with several results"),
        ("operator.add", [1, "x"], {}, "takes numbers"),
    ],
)
def test_arguments_that_an_operator_is_not_declared_to_take(
    operator: str, args: list[Any], kwargs: dict[str, Any], reason: str
) -> None:
    def change(header: dict[str, Any]) -> None:
        node(header, operator=operator, args=args, kwargs=kwargs)

    assert_refused(sealed(change), reason)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"dtype": "float64", "shape": [-1, 4, 6, 6]}, "the plan declares torch.float64"),
        ({"dtype": "float32", "shape": [-1, 4, 6]}, "the plan declares torch.float32[-1, 4, 6]"),
        ({"dtype": "float32", "shape": [-1, 4, 6, 7]}, "the plan declares torch.float32[-1, 4, 6, 7]"),
    ],
)
def test_results_that_are_not_what_the_plan_declares(result: dict[str, Any], reason: str) -> None:
    def change(header: dict[str, Any]) -> None:
        layer = next(layer for layer in header["graph"]["nodes"] if layer["result"] is not None)
        layer["result"] = result

    assert_refused(sealed(change), reason)


def test_a_result_that_is_known_only_when_the_network_runs() -> None:
    def change(header: dict[str, Any]) -> None:
        nonzero = next(layer for layer in header["graph"]["nodes"] if layer["data_dependent"])
        nonzero["result"]["shape"] = [-1, 3]

    session = Session(sealed(change, plans.nonzero()))
    session.bind_inputs(torch.ones(2, 5))
    session.bind_outputs()
    assert not session.enqueue()
    assert "the plan declares torch.int64[-1, 3]" in session.logger.take_error()


def test_an_output_that_depends_on_data_and_does_not_say_so() -> None:
    plan = sealed(lambda header: header["outputs"][0].update(data_dependent=False), plans.nonzero())
    assert_refused(plan, "depends on data")


@pytest.mark.parametrize(
    "text",
    [
        b'{"name":[' + b"[]," * (8 << 20) + b"[]]}",
        b'{"name":[' + b"{}," * (4 << 20) + b"{}]}",
        b"[" * (16 << 20),
        b'{"name":"' + b"x" * (65 << 20) + b'"}',
        b'{"name":[' + (b"9" * 4300 + b",") * 5000 + b"0]}",
    ],
    ids=["lists", "objects", "nested", "text", "digits"],
)
def test_large_headers_take_little_time_and_memory(text: bytes) -> None:
    plan = headed(text)
    started = time.process_time()
    tracemalloc.start()
    try:
        assert_refused(plan)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The plan is copied, and its header is cut out of the copy and decoded.
    assert peak < 5 * len(plan) + (8 << 20)
    assert time.process_time() - started < 5


def test_from_file_touches_no_file(tmp_path: Path) -> None:
    victim = tmp_path / "victim"

    def change(header: dict[str, Any]) -> None:
        header["graph"]["nodes"][0] |= {
            "operator": "aten.from_file.default",
            "args": [str(victim), True, 10],
            "kwargs": {},
        }

    assert_refused(sealed(change), "may not use")
    assert os.listdir(tmp_path) == []


def node(header: dict[str, Any], **fields: Any) -> None:
    header["graph"]["nodes"][0] |= fields


CHANGES: dict[str, Change] = {
    "unknown field": lambda h: h.update(extra=1),
    "field missing": lambda h: h.pop("device"),
    "device": lambda h: h.update(device="mps"),
    "alignment": lambda h: h.update(alignment=1),
    "no profiles": lambda h: h.update(profiles=[]),
    "profile of another length": lambda h: h["profiles"][0].update(shapes=[]),
    "profile of another rank": lambda h: h["profiles"][0]["shapes"][0][0].pop(),
    "profile with negative sizes": lambda h: h["profiles"][0]["shapes"][0].__setitem__(0, [-1, 1, 8, 8]),
    "profile with huge sizes": lambda h: h["profiles"][0]["shapes"][0].__setitem__(2, [2**63] * 4),
    "profile with a minimum above all": lambda h: h["profiles"][0]["shapes"][0].__setitem__(
        0, [2**20, 1, 8, 8]
    ),
    "profile with an optimum above the maximum": lambda h: h["profiles"][0]["shapes"][0].__setitem__(
        1, [2**20, 1, 8, 8]
    ),
    "profile with floats": lambda h: h["profiles"][0]["shapes"][0].__setitem__(2, [1.5] * 4),
    "profile with booleans": lambda h: h["profiles"][0]["shapes"][0].__setitem__(0, [True] * 4),
    "values for a device tensor's dtype": lambda h: h["inputs"][0].update(location="host"),
    "scratch": lambda h: h["profiles"][0].update(scratch_bytes=-1),
    "two tensors of one name": lambda h: h["outputs"][0].update(name="x"),
    "name": lambda h: h["inputs"][0].update(name=7),
    "dtype": lambda h: h["inputs"][0].update(dtype="object"),
    "dtype that I/O cannot have": lambda h: h["inputs"][0].update(dtype="float64"),
    "nine dimensions": lambda h: h["inputs"][0].update(shape=[1] * 9),
    "shape": lambda h: h["inputs"][0].update(shape=[-2]),
    "location": lambda h: h["inputs"][0].update(location="disk"),
    "alias of nothing": lambda h: h["outputs"][0].update(aliased_input="nothing"),
    "known dimensions": lambda h: h["outputs"][0].update(known_dims=[[0, 9], 1]),
    "known dimensions of no input": lambda h: h["outputs"][0].update(known_dims=[[5, 0], 1]),
    "known dimensions missing": lambda h: h["outputs"][0].update(known_dims=[]),
    "relation": lambda h: h["relations"].append([0, 0, 9, 0, 1, 0]),
    "relation of an axis": lambda h: h["relations"].append([0, 0, 0, -1, 1, 0]),
    "relation too short": lambda h: h["relations"].append([0, 0]),
    "weight outside": lambda h: h["weights"][-1].update(shape=[10**6]),
    "weight of absurd size": lambda h: h["weights"][0].update(shape=[2**60, 2**60]),
    "weight with many dimensions": lambda h: h["weights"][0].update(shape=[1] * 65),
    "weight negative": lambda h: h["weights"][0].update(shape=[-4]),
    "weight overlapping": lambda h: h["weights"][1].update(offset=0),
    "weight before the plan": lambda h: h["weights"][0].update(offset=-64),
    "weight too many": lambda h: h["weights"].append(
        {"dtype": "float32", "shape": [16], "offset": 0, "name": None}
    ),
    "weights of one name": lambda h: h["weights"][0].update(name=h["weights"][1]["name"]),
    "weight's name": lambda h: h["weights"][0].update(name=7),
    "refittable": lambda h: h.update(refittable="yes"),
    "weight too few": lambda h: h["weights"].pop(),
    "graph": lambda h: h.update(graph=[]),
    "nodes": lambda h: h["graph"].update(nodes={}),
    "node": lambda h: h["graph"]["nodes"].append(7),
    "node with more": lambda h: node(h, code="import os"),
    "outputs": lambda h: h["graph"].update(outputs=[]),
    "outputs that do not exist": lambda h: h["graph"].update(outputs=[10**6]),
    "outputs negative": lambda h: h["graph"].update(outputs=[-1]),
    "value that does not exist yet": lambda h: node(h, args=[{"value": 10**6}]),
    "value negative": lambda h: node(h, args=[{"value": -1}]),
    "value that is none": lambda h: node(h, args=[{"value": "x"}]),
    "argument of unknown kind": lambda h: node(h, args=[{"pickle": "gASVBg=="}]),
    "argument of two kinds": lambda h: node(h, args=[{"value": 0, "dtype": "float32"}]),
    "argument nested": lambda h: node(h, args=[[[[[[0]]]]]]),
    "argument dtype": lambda h: node(h, args=[{"dtype": "__class__"}]),
    "argument device": lambda h: node(h, args=[{"device": "cuda:99"}]),
    "argument layout": lambda h: node(h, args=[{"layout": "sparse_coo"}]),
    "argument number": lambda h: node(h, args=[{"float": "one"}]),
    "too many arguments": lambda h: node(h, args=[0] * 100),
    "keyword": lambda h: node(h, kwargs={"__class__": 1}),
    "out": lambda h: node(h, kwargs={"out": {"value": 0}}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_headers_that_do_not_make_sense(change: Change) -> None:
    assert_refused(sealed(change))


def test_boolean_weights_with_other_values() -> None:
    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.tensor([True, False]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.mask

    plan = trt.build(Masked(), (torch.zeros(2),))
    header, weights = unpack(memoryview(plan))
    changed = bytearray(weights)
    changed[0] = 7
    assert_refused(pack(header, [changed]), "boolean weight")


def test_plans_for_cuda_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_refused(plans.affine(device="cuda"), "PyTorch sees no CUDA device here")


@pytest.mark.parametrize(
    ("operator", "args"),
    [
        ("operator.pow", [9, 10**9]),
        ("builtins.round", [8, -(2**31)]),
        ("builtins.round", [8.5, 2**62]),
        ("aten.arange.start_step", [0, 1, 0]),
        ("aten.one_hot.default", [{"value": 0}, -1]),
        ("aten.expand.default", [{"value": 0}, [2**31 - 1, 2**31 - 1, 7, 7]]),
        ("operator.mul", [2**62, 4]),
        ("operator.mul", [[0], 10**9]),
        ("operator.mul", ["a", 10**9]),
        ("operator.add", [{"value": 0}, 1]),
        ("operator.getitem", [{"value": 0}, 0]),
        ("operator.getitem", [[0], 10**9]),
        ("builtins.round", [1, "x"]),
        ("operator.truediv", [1, 0]),
        ("aten.zeros.default", [[2**40, 2**40]]),
        ("aten.full.default", [[-1], 1]),
        ("aten.reshape.default", [{"value": 0}, ["x"]]),
        ("aten.item.default", [{"value": 0}]),
        ("aten.add.Tensor", ["text", {"value": 0}]),
        ("aten.convolution.default", []),
    ],
)
def test_networks_that_cannot_run_fail_when_they_run(operator: str, args: list[Any]) -> None:
    def change(header: dict[str, Any]) -> None:
        node(header, operator=operator, args=args, kwargs={})

    plan = sealed(change, plans.affine())
    engine, errors = load(plan)
    if engine is None:
        assert len(errors) == 1
        return
    run(engine)


def run(engine: trt.ICudaEngine) -> None:
    """Use an engine of doubtful origin in every way; nothing raises but what TensorRT raises."""
    context = engine.create_execution_context()
    tensors = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            context.set_input_shape(name, tuple(engine.get_tensor_profile_shape(name, 0)[1]))
    with contextlib.suppress(RuntimeError):
        context.infer_shapes()
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = context.get_tensor_shape(name)
        count = 1
        for size in shape:
            count *= max(size, 0)
        if count < 2**20:
            tensors.append(torch.zeros(max(count * 8, 1), dtype=torch.uint8))
            context.set_tensor_address(name, tensors[-1].data_ptr())
    assert context.execute_async_v3(0) in (True, False)
    engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    assert len(engine.serialize()) > PREFIX


def leaves(json_value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(json_value, dict):
        return [path, *(p for key, value in json_value.items() for p in leaves(value, (*path, key)))]
    if isinstance(json_value, list):
        return [path, *(p for key, value in enumerate(json_value) for p in leaves(value, (*path, key)))]
    return [path]


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2, -1, 7])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.builds(lambda index: {"value": index}, st.integers(0, 12)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@examples(300)
@given(seed=st.integers(0, 2**32), junk=JUNK)
def test_headers_with_junk_anywhere(seed: int, junk: Any) -> None:
    def change(header: dict[str, Any]) -> None:
        path = random.Random(seed).choice(leaves(header)[1:])
        place = header
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = junk

    engine, errors = load(sealed(change, random.Random(seed).choice([plans.affine(), plans.streaming()])))
    assert (engine is None) == bool(errors)
    if engine is not None:
        run(engine)
