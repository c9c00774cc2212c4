"""Files of Torch-TensorRT load without Torch-TensorRT, and their pickles are not run."""

from __future__ import annotations

import base64
import io
import json
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.archive.saved import MANIFEST, MODEL, records_of, write_records
from trt_rt.archive import load
from trt_rt.archive.inspection import ArchiveContents, inspect_archive
from trt_rt.errors import ArchiveError

_CLASS = "__torch__.torch.classes.tensorrt.Engine"


def _text(value: str) -> bytes:
    content = value.encode()
    return b"X" + len(content).to_bytes(4, "little") + content


def _pickled(fields: list[str]) -> bytes:
    """The opcodes that PyTorch writes for an engine, as they were seen in a file of Torch-TensorRT 2.11."""
    return b"".join(
        (
            b"\x80\x02c__torch__.torch.classes.tensorrt\nEngine\nq\x00)\x81",
            b"ctorch.jit._pickle\nrestore_type_tag\nq\x01](",
            *(_text(field) + b"q" + bytes([number + 2]) for number, field in enumerate(fields)),
            b"e",
            _text("List[str]"),
            b"q\x20\x86Rq\x21bq\x22.",
        )
    )


def _object(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def _fields(plan: bytes) -> list[str]:
    encoded = base64.b64encode(plan).decode()
    return ["8", "engine", "0%9%0%0%GPU", encoded, "input", "output0", "0", "", "linux_x86_64", "0", "0", "0"]


def _of_torch_tensorrt(archive: Path, target: Path, pickled: Any = _pickled, *, opaque: bool = False) -> Path:
    """The program of a file of ours, as Torch-TensorRT writes it; `opaque` for engines in Python."""
    records = records_of(archive)
    plan_record = json.loads(records.pop(MANIFEST))["engines"][0]["record"]
    plan = records.pop(plan_record)
    weights = json.loads(records["data/weights/model_weights_config.json"])
    del weights["config"]["plan"]
    records["data/weights/model_weights_config.json"] = json.dumps(weights).encode()
    record = "opaque_obj_0" if opaque else "custom_obj_0"
    entry = {"path_name": record, "is_param": False, "use_pickle": True, "tensor_meta": None}
    records["data/constants/model_constants_config.json"] = json.dumps({"config": {"plan": entry}}).encode()
    content = pickled(_fields(plan))
    records[f"data/constants/{record}"] = content if opaque else _object(content)
    model = json.loads(records[MODEL])
    graph, signature = model["graph_module"]["graph"], model["graph_module"]["signature"]
    for number, spec in enumerate(signature["input_specs"]):
        if "buffer" in spec and spec["buffer"]["buffer_name"] == "plan":
            name = spec["buffer"]["arg"]["name"]
            custom = {"name": name, "class_fqn": _CLASS}
            signature["input_specs"][number] = {"custom_obj": {"arg": custom, "custom_obj_name": "plan"}}
            graph["inputs"][number] = {"as_custom_obj": custom}
            graph["custom_obj_values"] = {name: custom}
            del graph["tensor_values"][name]
    for node in graph["nodes"]:
        if "execute_engine" in node["target"]:
            node["target"] = "torch.ops.tensorrt.execute_engine.default"
            node["inputs"] = [
                {"name": "input_tensors", "arg": node["inputs"][0]["arg"], "kind": 1},
                {"name": "engine", "arg": {"as_custom_obj": custom}, "kind": 1},
            ]
    records[MODEL] = json.dumps(model).encode()
    write_records(target, records)
    return target


def test_it_runs_as_the_program_that_it_was(archive: Path, tmp_path: Path) -> None:
    expected, program = load(archive), load(_of_torch_tensorrt(archive, tmp_path / "theirs.ep"))
    assert program.code == expected.code
    args = torch.randn(3, 4), {"q": torch.ones(2)}
    torch.testing.assert_close(program(*args, flag=True), expected(*args, flag=True))
    told = "1 engine of reference; the file does not tell which operators run where"
    assert program.partition.summary() == told
    assert "torch_tensorrt" not in sys.modules


def test_inspect_tells_its_engines(archive: Path, tmp_path: Path) -> None:
    contents = inspect_archive(_of_torch_tensorrt(archive, tmp_path / "theirs.ep"))
    assert isinstance(contents, ArchiveContents)
    assert contents.is_of_torch_tensorrt
    (engine,) = contents.engines
    assert engine.meta.backend == "reference"
    assert [tensor.name for tensor in (*engine.meta.inputs, *engine.meta.outputs)] == ["input", "output0"]


class Bomb:
    """Unpickling it runs code."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)


@pytest.mark.behaviour(25, 28)
@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (lambda fields: pickle.dumps(Bomb()), "not read, because pickles can run code"),
        (lambda fields: pickle.dumps(Bomb(), protocol=0), "not read"),
        (lambda fields: _pickled(fields).replace(b"restore_type_tag", b"restore_other_tag"), "it names"),
        (lambda fields: _pickled(fields).replace(b"tensorrt\nEngine", b"tensorrt\nEvil  "), "it names"),
        (lambda fields: b"cos\nsystem\n(S'true'\ntR.", "it names 'os system'"),
        (lambda fields: b"", "damaged"),
        (lambda fields: b".", "damaged"),
        (lambda fields: b"\x80\x02h\x05.", "damaged"),
        (lambda fields: b"\x80\x02]e.", "damaged"),
        (lambda fields: b"\x80\x02].", "not that of an engine"),
        (lambda fields: _pickled(fields)[:-40], "damaged"),
        (lambda fields: _pickled(fields[:3]), "3 fields"),
        (lambda fields: _pickled([*fields[:3], "not base64", *fields[4:]]), "base64"),
        (lambda fields: _pickled([*fields[:4], "a%b", *fields[5:]]), "called with 1"),
        (lambda fields: _pickled([*fields[:3], "", *fields[4:]]), "empty"),
    ],
)
def test_other_pickles_are_refused(archive: Path, tmp_path: Path, pickled: Any, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        load(_of_torch_tensorrt(archive, tmp_path / "theirs.ep", pickled))


def _reconstructed(fields: list[str], protocol: int) -> bytes:
    """The pickle of Torch-TensorRT 2.13 and 2.14, whose class is not needed to write it."""
    module = types.ModuleType("torch_tensorrt.dynamo.runtime._TRTEngine")
    exec("def _reconstruct_trt_engine(fields): ...", vars(module))

    class EngineSerializer:
        def __reduce__(self) -> Any:
            return vars(module)["_reconstruct_trt_engine"], (fields,)

    names = [".".join(module.__name__.split(".")[: depth + 1]) for depth in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, module)
        return pickle.dumps(EngineSerializer(), protocol=protocol)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_engines_of_the_python_runtime(archive: Path, tmp_path: Path, protocol: int) -> None:
    def pickled(fields: list[str]) -> bytes:
        fields[0] = "10"
        return _reconstructed([*fields, ""], protocol)

    path = _of_torch_tensorrt(archive, tmp_path / "theirs.pt2", pickled, opaque=True)
    args = torch.randn(3, 4), {"q": torch.ones(2)}
    torch.testing.assert_close(load(path)(*args, flag=True), load(archive)(*args, flag=True))
    assert "torch_tensorrt" not in sys.modules


@pytest.mark.behaviour(25, 28)
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b"_reconstruct_trt_engine", b"_reconstruct_trt_enginf"),
        lambda content: content.replace(b"torch_tensorrt.dynamo", b"torch_tensorru.dynamo"),
        lambda content: content[:-1] + b"0.",
        lambda content: pickle.dumps(Bomb()),
        lambda content: b"\x80\x02cbuiltins\nexec\nX\x04\x00\x00\x00pass\x85R.",
    ],
)
def test_other_python_engines_are_refused(archive: Path, tmp_path: Path, change: Any) -> None:
    def pickled(fields: list[str]) -> bytes:
        return bytes(change(_reconstructed(fields, 2)))

    with pytest.raises(ArchiveError, match=r"not read|damaged"):
        load(_of_torch_tensorrt(archive, tmp_path / "theirs.pt2", pickled, opaque=True))


def test_every_byte_of_the_pickle_flipped(archive: Path, tmp_path: Path) -> None:
    from trt_rt.archive.engine_pickle import read_engine

    fields = _fields(b"plan")
    content = _pickled(fields)
    expected = read_engine(memoryview(_object(content)), "it")
    for position in range(len(content)):
        for flip in (0x01, 0xFF):
            changed = bytearray(content)
            changed[position] ^= flip
            try:
                found = read_engine(memoryview(_object(bytes(changed))), "it")
            except ArchiveError:
                continue
            assert type(found) is type(expected)


def test_outputs_in_the_memory_of_inputs_are_told(archive: Path, tmp_path: Path) -> None:
    """Format 10, of Torch-TensorRT 2.14."""
    from trt_rt.archive.engine_pickle import engine_of_state

    fields = ["10", *_fields(b"plan")[1:11], "0", "cache_out@cache@kv_cache_update%b@a@user"]
    assert engine_of_state(fields, "it").aliased_io == {"cache_out": "cache", "b": "a"}
    with pytest.raises(ArchiveError, match="in the memory of an input"):
        engine_of_state([*fields[:12], "cache_out"], "it")


@pytest.mark.behaviour(28)
@pytest.mark.parametrize("opaque", [False, True])
def test_damaged_files_are_refused_or_change_nothing(archive: Path, tmp_path: Path, opaque: bool) -> None:
    def pickled(fields: list[str]) -> bytes:
        return _reconstructed(fields, 2) if opaque else _pickled(fields)

    content = _of_torch_tensorrt(archive, tmp_path / "theirs.pt2", pickled, opaque=opaque).read_bytes()
    path = tmp_path / "damaged.pt2"
    args = torch.randn(3, 4), {"q": torch.ones(2)}
    expected = load(archive)(*args, flag=True)
    for position in range(0, len(content), 131):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            program = load(path)
        except ArchiveError:
            continue
        torch.testing.assert_close(program(*args, flag=True), expected)
    for size in range(0, len(content), 463):
        path.write_bytes(content[:size])
        for read in (load, inspect_archive):
            with pytest.raises(ArchiveError):
                read(path)
