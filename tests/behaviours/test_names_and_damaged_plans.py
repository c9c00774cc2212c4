"""Names of any characters, and files that are not what they should be."""

from __future__ import annotations

import copy
import hashlib
import random

import pytest
import torch

import trt_rt
from tests.behaviours.child import run_to_the_end


@pytest.mark.behaviour(27)
def test_calls_by_position_and_by_name(make):
    """Names with spaces, quotes, braces, line breaks or letters of any script work wherever a name goes."""
    case = make("names")
    module = case.module()
    a, b = case.example(3)
    first, second = case.inputs
    assert module.input_binding_names == case.inputs
    assert module.output_binding_names == case.outputs
    expected = case.expected(a, b)
    case.assert_right(module(a, b), expected)
    case.assert_right(module(**{second: b, first: a}), expected)
    case.assert_right(module(a, **{second: b}), expected)
    case.assert_right(module.bind(**{second: b, first: a})(), expected)
    assert all(repr(name) in repr(module) for name in (*case.inputs, *case.outputs))


@pytest.mark.behaviour(27)
def test_errors_name_the_tensor(make):
    """An error quotes such a name so that it can be told from the sentence around it."""
    case = make("names")
    module = case.module()
    a, b = case.example(3)
    for inputs, name in (((a.half(), b), case.inputs[0]), ((a, b[:, :1]), case.inputs[1])):
        with pytest.raises(trt_rt.InputError) as caught:
            module(*inputs)
        assert repr(name) in str(caught.value)
    with pytest.raises(trt_rt.InputError) as caught:
        module(a, b, out=(torch.empty_like(a), None))
    assert repr(case.outputs[1]) in str(caught.value)
    with pytest.raises(trt_rt.InputError) as caught:
        module(a, **{"no such {name}": b})
    assert all(repr(name) in str(caught.value) for name in case.inputs)


@pytest.mark.behaviour(27)
@pytest.mark.parametrize("kind", ["names", "two"])
def test_another_order(make, kind):
    """Binding names in another order change the order of arguments and results."""
    case = make(kind)
    module = case.module(input_binding_names=case.inputs[::-1], output_binding_names=case.outputs[::-1])
    a, b = case.example(3)
    case.assert_right(module(b, a), case.expected(a, b)[::-1])
    case.assert_right(module(**dict(zip(case.inputs, (a, b), strict=True))), case.expected(a, b)[::-1])


@pytest.mark.behaviour(27)
@pytest.mark.parametrize("kind", ["names", "two"])
def test_names_that_the_engine_does_not_have(make, kind):
    """A name that is missing, repeated, an output's or unknown is refused, with all that the engine has."""
    case = make(kind)
    engine = case.engine()
    first, second = case.inputs
    for names in (
        [first, case.outputs[0]],
        [first],
        [first, first],
        [first, second, second],
        [first, "{x}%s"],
    ):
        with pytest.raises(ValueError, match="binding_names") as caught:
            trt_rt.TRTModule(engine, names)
        assert all(repr(name) in str(caught.value) for name in case.inputs)
    for names in ([first, case.outputs[1]], [case.outputs[0]], []):
        with pytest.raises(ValueError, match="output_binding_names") as caught:
            trt_rt.TRTModule(engine, None, names)
        assert all(repr(name) in str(caught.value) for name in case.outputs)


def _prefixes(plan: bytes) -> list[int]:
    choice = random.Random(2)
    return sorted({*range(1, 65), *choice.sample(range(1, len(plan)), min(60, len(plan) - 1)), len(plan) - 1})


@pytest.mark.behaviour(28)
@pytest.mark.parametrize("kind", ["relu", "streaming"])
def test_truncated_plans(make, kind):
    """A plan cut off anywhere is refused with PlanError."""
    case = make(kind)
    for length in _prefixes(case.plan):
        with pytest.raises(trt_rt.PlanError):
            case.engine(plan=case.plan[:length])


def _damaged(plan: bytes, count: int) -> list[bytes]:
    """The plan with one byte changed: each of its first, and `count` others."""
    choice = random.Random(3)
    places = [*range(min(64, len(plan))), *(choice.randrange(len(plan)) for _ in range(count))]
    damaged = [bytearray(plan) for _ in places]
    for changed, place in zip(damaged, places, strict=True):
        changed[place] ^= choice.randrange(1, 256)
    return [bytes(changed) for changed in damaged]


@pytest.mark.behaviour(28)
def test_damaged_plans_are_refused_by_their_hash(make, tmp_path):
    """With sha256= a plan with a changed byte is refused, and TensorRT does not see a byte of it."""
    case = make("relu")
    inputs = case.example(3)
    path = tmp_path / "engine.plan"
    digest = hashlib.sha256(case.plan).hexdigest()
    backend, refusing = case.backend, copy.copy(case.backend)
    refusing.runtime = lambda: pytest.fail("a runtime was made for a plan that is not the one asked for")
    for plan in _damaged(case.plan, 100):
        path.write_bytes(plan)
        for source in (plan, path):
            with pytest.raises(trt_rt.PlanError, match=f"sha256= says {digest}"):
                trt_rt.TRTModule(source, backend=refusing, device=case.device, sha256=digest)
    path.write_bytes(case.plan)
    for source in (case.plan, bytearray(case.plan), path):
        module = trt_rt.TRTModule(source, backend=backend, device=case.device, sha256=digest.upper())
        case.assert_right(module(*inputs), case.expected(*inputs))


_LOAD_DAMAGED = """
import itertools, pathlib
plans, progress = pathlib.Path({plans!r}), pathlib.Path({progress!r})
for index in itertools.count(int(progress.read_text())):
    path = plans / str(index)
    if not path.exists():
        break
    progress.write_text(str(index))
    try:
        trt_rt.TRTModule(trt_rt.Engine.load(path, backend=backend, device={device!r}))(*inputs)
    except trt_rt.TRTError as error:
        assert str(error)
progress.write_text("done")
"""


@pytest.mark.behaviour(28)
def test_damaged_plans_without_a_hash(make, tmp_path):
    """A plan with a changed byte ends the process inside TensorRT, or raises an error of ours, or runs.

    No more can be promised: TensorRT's plans have no checksum. The reference backend's have one, and every
    change is refused.
    """
    case = make("relu")
    plans = _damaged(case.plan, 100)
    if case.backend_argument == "reference":
        for plan in plans:
            with pytest.raises(trt_rt.PlanError):
                case.engine(plan=plan)
        return
    folder, progress = tmp_path / "plans", tmp_path / "progress"
    folder.mkdir()
    for index, plan in enumerate(plans[::30]):
        (folder / str(index)).write_bytes(plan)
    progress.write_text("0")
    program = _LOAD_DAMAGED.format(plans=str(folder), progress=str(progress), device=str(case.device))
    while (reached := progress.read_text()) != "done":
        ended = run_to_the_end(case, tmp_path, program)
        if ended.returncode >= 0:
            assert ended.returncode == 0, ended.stderr
        else:  # a signal: TensorRT ended the process, and the next plan gets another one
            progress.write_text(str(int(progress.read_text()) + 1))
        assert progress.read_text() != reached


_JUNK = {
    "empty": b"",
    "one-byte": b"\0",
    "zeros": b"\0" * 4096,
    "start-of-tensorrt": b"ftrt",
    "start-of-rtx": b"vtrt" + b"\xff" * 60,
    "pickle": b"\x80\x05cos\nsystem\n(S'exit 1'\ntR.",
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "elf": b"\x7fELF" + b"\0" * 100,
    "random": random.Random(4).randbytes(5000),
}


@pytest.mark.behaviour(28)
@pytest.mark.parametrize("junk", _JUNK)
def test_files_of_another_kind(make, tmp_path, junk):
    """What is no plan, or one of another backend, is refused in our words, from memory and from a file."""
    case = make("relu")
    path = tmp_path / "engine.plan"
    path.write_bytes(_JUNK[junk])
    for backend in ("auto", case.backend_argument):
        with pytest.raises((trt_rt.PlanError, trt_rt.BackendError)):
            trt_rt.Engine.from_bytes(_JUNK[junk], backend=backend, device=case.device)
        with pytest.raises((trt_rt.PlanError, trt_rt.BackendError)):
            trt_rt.Engine.load(path, backend=backend, device=case.device)
    assert path.read_bytes() == _JUNK[junk]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.behaviour(28)
def test_files(make, tmp_path):
    """A plan in a file runs; a missing file and a folder raise what open() raises; nothing is written."""
    case = make("two")
    path = tmp_path / "a plan {with} %s.engine"
    path.write_bytes(case.plan)
    inputs = case.example(3)
    for place in (path, str(path)):
        engine = trt_rt.Engine.load(place, backend=case.backend_argument, device=case.device)
        assert engine.name == path.name
        case.assert_right(trt_rt.TRTModule(engine)(*inputs), case.expected(*inputs))
    module = trt_rt.TRTModule(path, backend=case.backend_argument, device=case.device)
    case.assert_right(module(*inputs), case.expected(*inputs))
    with pytest.raises(FileNotFoundError):
        trt_rt.Engine.load(tmp_path / "missing")
    with pytest.raises(OSError, match="directory"):
        trt_rt.Engine.load(tmp_path)
    assert path.read_bytes() == case.plan
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.behaviour(28)
def test_the_plan_is_not_needed_afterwards(make, tmp_path):
    """Once loaded, an engine does not care what becomes of the bytes or of the file."""
    case = make("streaming")
    inputs = case.example(3)
    memory = bytearray(case.plan)
    from_memory = case.engine(plan=memory)
    memory[:] = bytes(len(memory))
    path = tmp_path / "engine.plan"
    path.write_bytes(case.plan)
    from_file = trt_rt.Engine.load(path, backend=case.backend_argument, device=case.device)
    path.write_bytes(bytes(len(case.plan)))
    path.unlink()
    for engine in (from_memory, from_file):
        case.assert_right(trt_rt.TRTModule(engine)(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(28)
def test_a_refused_plan_leaves_other_engines_alone(make):
    """Engines that are loaded keep working when others are refused."""
    case = make("two")
    module = case.module()
    inputs = case.example(3)
    for _ in range(3):
        with pytest.raises(trt_rt.PlanError):
            case.engine(plan=case.plan[: len(case.plan) // 2])
        case.assert_right(module(*inputs), case.expected(*inputs))
    case.assert_right(case.module()(*inputs), case.expected(*inputs))
