"""An Engine: made from bytes or a file, says what it is, and is closed once and for all."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import BackendError, BoundCall, ClosedError, Engine, PlanError, TRTModule
from trt_rt.engine import __file__ as engine_package
from trt_rt.errors import TRTError


@pytest.fixture
def plan() -> bytes:
    return plans.affine()


@pytest.fixture
def plan_file(tmp_path: Path, plan: bytes) -> Path:
    path = tmp_path / "affine.plan"
    path.write_bytes(plan)
    return path


def check_runs(engine: Engine) -> None:
    x = torch.randn(3, 7)
    torch.testing.assert_close(TRTModule(engine)(x), eager_affine(x))


@pytest.mark.parametrize(
    "kind",
    [bytes, bytearray, memoryview, lambda plan: np.frombuffer(plan, "u1"), lambda plan: bytearray(plan)],
    ids=["bytes", "bytearray", "memoryview", "numpy read-only", "writable"],
)
def test_from_bytes_takes_any_buffer(plan, kind) -> None:
    check_runs(Engine.from_bytes(kind(plan)))


def test_from_bytes_takes_a_mapped_file(plan_file: Path) -> None:
    with plan_file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
        engine = Engine.from_bytes(plan)
    check_runs(engine)


def test_the_plan_is_not_needed_once_loaded(plan: bytes) -> None:
    held = bytearray(plan)
    engine = Engine.from_bytes(held)
    held[:] = bytes(len(held))
    held.clear()  # nobody exports the buffer any more
    check_runs(engine)


def test_load(plan_file: Path) -> None:
    engine = Engine.load(plan_file)
    assert engine.name == "affine.plan"
    plan_file.unlink()
    check_runs(engine)


def test_load_takes_a_string_and_a_name(plan_file: Path) -> None:
    engine = Engine.load(str(plan_file), name="mine")
    assert engine.name == "mine"
    check_runs(engine)


def test_load_keeps_no_file_open(plan_file: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    engine = Engine.load(plan_file)
    assert len(os.listdir("/proc/self/fd")) == before
    check_runs(engine)


def test_load_of_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Engine.load(tmp_path / "missing.plan")
    with pytest.raises(IsADirectoryError):
        Engine.load(tmp_path)


BAD_CONTENT = {
    "empty": b"",
    "text": b"hello",
    "truncated": plans.affine()[:-1],
    "magic alone": b"TRTRTREF",
    "half a prefix": plans.affine()[:40],
    "too long": plans.affine() + b"\0",
}


@pytest.mark.parametrize("content", BAD_CONTENT.values(), ids=BAD_CONTENT.keys())
def test_bad_content_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.plan"
    path.write_bytes(content)
    with pytest.raises(PlanError) as of_bytes:
        Engine.from_bytes(content)
    with pytest.raises(PlanError) as of_file:
        Engine.load(path)
    assert isinstance(of_bytes.value, ValueError)
    assert "bad.plan" in str(of_file.value)
    assert len(str(of_bytes.value)) > 20


@pytest.mark.parametrize("value", [None, 3, "a string", object(), 1.5, torch.zeros(8, dtype=torch.uint8)])
def test_what_is_no_buffer_is_a_type_error(value) -> None:
    with pytest.raises(TypeError):
        Engine.from_bytes(value)


@pytest.mark.parametrize(
    "view",
    [
        lambda plan: memoryview(plan + plan)[::2],
        lambda plan: np.zeros((64, 64), "u1"),
        lambda plan: np.zeros(0),
    ],
    ids=["strided", "two-dimensional", "empty"],
)
def test_odd_buffers_are_refused(plan: bytes, view) -> None:
    with pytest.raises((TRTError, TypeError)):
        Engine.from_bytes(view(plan))


def test_properties() -> None:
    engine = Engine.from_bytes(plans.two(), name="sum")
    assert engine.name == "sum"
    assert engine.backend == "reference"
    assert engine.tensorrt_version[0].isdigit()
    assert engine.device == torch.device("cpu")
    assert engine.num_optimization_profiles == 1
    assert not engine.closed
    assert repr(engine) == "<Engine 'sum' reference on cpu>"
    assert [tensor.name for tensor in engine.inputs] == ["a", "b"]
    assert [tensor.name for tensor in engine.outputs] == ["sum", "increment"]
    first = engine.inputs[0]
    assert (first.mode, first.dtype, first.shape, first.location, first.format) == (
        "input",
        torch.float32,
        (-1, 3),
        "device",
        "LINEAR",
    )
    assert (first.is_dynamic, first.is_shape_tensor, first.aliased_input) == (True, False, None)
    assert (first.profiles[0].min, first.profiles[0].opt, first.profiles[0].max) == ((1, 3), (3, 3), (32, 3))
    assert engine.outputs[0].mode == "output"
    assert engine.outputs[0].profiles == ()


def test_profiles_are_described() -> None:
    engine = Engine.from_bytes(plans.profiles())
    assert engine.num_optimization_profiles == 2
    assert [profile.max for profile in engine.inputs[0].profiles] == [(4, 7), (32, 7)]


def test_shape_tensors_are_described() -> None:
    length = Engine.from_bytes(plans.shape_tensor()).inputs[1]
    assert (length.location, length.dtype, length.shape) == ("host", torch.int64, (1,))
    assert length.is_shape_tensor
    assert [(profile.min, profile.max) for profile in length.profiles] == [((1,), (9,)), ((10,), (20,))]


def test_aliases_are_described() -> None:
    outputs = Engine.from_bytes(plans.accumulate()).outputs
    assert [output.aliased_input for output in outputs if output.aliased_input] == ["cache"]


def test_inspect_names_the_layers() -> None:
    layers = Engine.from_bytes(plans.affine()).inspect()["Layers"]
    assert any("relu" in str(layer) for layer in layers)


def test_serialize_gives_a_plan_that_loads(plan: bytes) -> None:
    written = Engine.from_bytes(plan).serialize()
    assert isinstance(written, bytes)
    assert written == plan
    check_runs(Engine.from_bytes(written))


def test_close_is_idempotent(plan: bytes) -> None:
    engine = Engine.from_bytes(plan)
    engine.close()
    engine.close()
    assert engine.closed
    assert repr(engine) == "<Engine 'engine' reference closed>"


def test_context_manager_closes(plan: bytes) -> None:
    with Engine.from_bytes(plan) as engine:
        check_runs(engine)
        assert not engine.closed
    assert engine.closed
    with pytest.raises(ClosedError), engine:
        pytest.fail("a closed engine cannot be entered")


def test_context_manager_closes_on_an_exception(plan: bytes) -> None:
    engine = Engine.from_bytes(plan)
    with pytest.raises(KeyError), engine:
        raise KeyError
    assert engine.closed


def closed_engine() -> tuple[Engine, TRTModule, BoundCall, torch.Tensor]:
    engine = Engine.from_bytes(plans.affine(), name="gone")
    module = TRTModule(engine)
    x = torch.randn(3, 7)
    module(x)
    bound = module.bind(x)
    engine.close()
    return engine, module, bound, x


USES_AFTER_CLOSE = {
    "call": lambda engine, module, bound, x: module(x),
    "call with keywords": lambda engine, module, bound, x: module(x=x),
    "call with out": lambda engine, module, bound, x: module(x, out=torch.empty(3, 7)),
    "call with a wrong count": lambda engine, module, bound, x: module(),
    "executor": lambda engine, module, bound, x: module.executor(x),
    "bind": lambda engine, module, bound, x: module.bind(x),
    "bound call": lambda engine, module, bound, x: bound(),
    "new module": lambda engine, module, bound, x: TRTModule(engine),
    "serialize": lambda engine, module, bound, x: engine.serialize(),
    "serialized": lambda engine, module, bound, x: engine.serialized(),
    "inspect": lambda engine, module, bound, x: engine.inspect(),
    "number of profiles": lambda engine, module, bound, x: engine.num_optimization_profiles,
}


@pytest.mark.parametrize("use", USES_AFTER_CLOSE.values(), ids=USES_AFTER_CLOSE.keys())
def test_use_after_close(use) -> None:
    with pytest.raises(ClosedError, match="'gone' was closed; load it again"):
        use(*closed_engine())


def test_what_was_read_before_close_stays() -> None:
    engine, module, bound, x = closed_engine()
    assert module.executor.closed
    assert engine.inputs[0].name == "x"
    torch.testing.assert_close(bound.outputs.shape, x.shape)
    assert "gone" in repr(module)


def test_results_outlive_the_engine(plan: bytes) -> None:
    with Engine.from_bytes(plan) as engine:
        x = torch.randn(3, 7)
        module = TRTModule(engine)
        fresh = module(x)
        module.set_pre_allocated_outputs(True)
        reused = module(x)
    del module, engine
    torch.testing.assert_close(fresh, eager_affine(x))
    torch.testing.assert_close(reused, eager_affine(x))


def test_modules_share_an_engine_and_nothing_else(plan: bytes) -> None:
    engine = Engine.from_bytes(plan)
    one, other = TRTModule(engine), TRTModule(engine)
    x, y = torch.randn(3, 7), torch.randn(5, 7)
    for _ in range(2):
        torch.testing.assert_close(one(x), eager_affine(x))
        torch.testing.assert_close(other(y), eager_affine(y))
    engine.close()
    for module in (one, other):
        with pytest.raises(ClosedError):
            module(x)


@pytest.mark.parametrize("device", ["meta", "nonsense", "cuda:-1", -1, "xpu", "cpu:-2"])
def test_devices_that_no_engine_runs_on(plan: bytes, device) -> None:
    with pytest.raises(BackendError):
        Engine.from_bytes(plan, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a PyTorch that sees no CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", 0, "cuda:99"])
def test_a_gpu_that_is_not_there(plan: bytes, device) -> None:
    with pytest.raises(BackendError, match=r"GPU|CUDA|NVIDIA"):
        Engine.from_bytes(plan, device=device)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "cpu:0", None])
def test_the_cpu_by_every_name(plan: bytes, device) -> None:
    if device is None and torch.cuda.is_available():
        pytest.skip("needs a machine whose default device is the CPU")
    engine = Engine.from_bytes(plan, device=device)
    assert engine.device == torch.device("cpu")
    check_runs(engine)


def test_a_reference_plan_for_another_kind_of_device() -> None:
    """It says so at once, and not when it is first called."""
    plan = plans.affine(device="cuda")
    with pytest.raises(PlanError, match="was built for device='cuda' and cannot run on cpu"):
        Engine.from_bytes(plan, device="cpu")


def test_an_engine_that_is_being_changed_is_closed_afterwards() -> None:
    """By a finalizer, on the thread that changes it: no deadlock, and the change is not disturbed."""
    module, x = TRTModule(plans.affine()), torch.randn(3, 7)
    module(x)

    def close(tensorrt_engine: object) -> None:
        module.engine.close()
        assert not module.engine.closed

    module.engine.run_without_contexts(close)
    assert module.engine.closed
    with pytest.raises(ClosedError):
        module(x)


def _at_bytecode(number: int, act: Callable[[], object], code: Callable[[], object]) -> bool:
    """Run `code`, and `act` before a bytecode of ``trt_rt.engine``, as a thread might; False if none came."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if event == "call" and Path(frame.f_code.co_filename).parent != Path(engine_package).parent:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen += 1
            if seen == number:
                act()
        return trace

    sys.settrace(trace)
    try:
        code()
    finally:
        sys.settrace(None)
    return seen >= number


@pytest.mark.behaviour(21)
@pytest.mark.parametrize(
    "look",
    [
        pytest.param(lambda engine: engine.streamable_weights_size, id="weights"),
        pytest.param(lambda engine: engine.weight_streaming_budget, id="budget"),
        pytest.param(lambda engine: engine.workspace_size, id="workspace"),
        pytest.param(lambda engine: engine.num_optimization_profiles, id="profiles"),
        pytest.param(lambda engine: engine.inspect(), id="inspect"),
        pytest.param(lambda engine: engine.serialize(), id="serialize"),
    ],
)
def test_an_engine_that_is_closed_while_somebody_looks_at_it(
    plan: bytes, look: Callable[[Engine], Any]
) -> None:
    """Whenever another thread closes it, the answer is right, or says that the engine was closed."""
    expected = look(Engine.from_bytes(plan))
    outcomes = set()
    number, came = 0, True
    while came:
        number += 1
        engine = Engine.from_bytes(plan)

        def code(engine: Engine = engine) -> None:
            try:
                assert look(engine) == expected
            except ClosedError:
                outcomes.add("closed")
            else:
                outcomes.add("right")

        came = _at_bytecode(number, engine.close, code)
    assert outcomes == {"closed", "right"}
    assert number > 5
