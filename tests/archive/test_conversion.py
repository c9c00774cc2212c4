"""Programs go from Torch-TensorRT's form to ours and back."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import trt_rt
from tests.archive.saved import MANIFEST, MODEL, records_of, rewrite
from tests.archive.torchscript_files import Example
from trt_rt.archive import conversion
from trt_rt.archive.engine_pickle import PickledEngine, read_engine
from trt_rt.cli.main import main
from trt_rt.errors import ArchiveError

_ARGS = torch.randn(3, 4), {"q": torch.ones(2)}


@pytest.fixture
def any_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let plans of the reference backend stand for TensorRT's, which no CPU runs."""
    monkeypatch.setattr(conversion, "_BACKENDS", ("reference",))


def _of_a_gpu(archive: Path, target: Path) -> Path:
    """A file whose manifest tells a GPU, as one that was saved on one does."""
    with zipfile.ZipFile(archive) as file:
        records = {name: file.read(name) for name in file.namelist()}
    name = f"archive/{MANIFEST}"
    manifest = json.loads(records[name])
    manifest["compute_capability"] = "9.0"
    manifest["gpu"] = "NVIDIA H200"
    records[name] = json.dumps(manifest).encode()
    with zipfile.ZipFile(target, "w") as file:
        for each, content in records.items():
            file.writestr(each, content)
    return target


def _state(engine: bytes) -> list[str]:
    """The strings of an engine's record, by an unpickler that makes no object."""

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            made = {
                "__torch__.torch.classes.tensorrt.Engine": type("Engine", (), {}),
                "torch.jit._pickle.restore_type_tag": lambda value, tag: {"fields": value},
            }
            return made[f"{module}.{name}"]

    with zipfile.ZipFile(io.BytesIO(engine)) as file:
        return list(Reader(io.BytesIO(file.read("archive/data.pkl"))).load().fields)


@pytest.mark.usefixtures("any_backend")
@pytest.mark.parametrize(
    ("version", "number", "count"), [("2.11", "8", 11), ("2.13", "9", 12), ("2.14", "10", 13)]
)
def test_there_and_back(archive: Path, tmp_path: Path, version: str, number: str, count: int) -> None:
    ours = _of_a_gpu(archive, tmp_path / "ours.pt2")
    done = conversion.convert(ours, tmp_path / "theirs.pt2", version=version)
    assert done == conversion.Conversion("Torch-TensorRT", version, 1)
    records = records_of(tmp_path / "theirs.pt2")
    fields = _state(records["data/constants/custom_obj_0"])
    assert (fields[0], len(fields)) == (number, count)
    assert fields[1:3] == ["engine_0_engine", "0%9%0%0%NVIDIA H200"]
    assert fields[4:7] == ["input", "output0", "0"]
    assert fields[8:11] == ["linux_x86_64", "0", "0"]
    program = trt_rt.load(archive)
    expected = program(*_ARGS, flag=True)  # its first call: the program counts them
    theirs = trt_rt.load(tmp_path / "theirs.pt2")
    torch.testing.assert_close(theirs(*_ARGS, flag=True), expected)
    assert conversion.convert(tmp_path / "theirs.pt2", tmp_path / "again.pt2").engines == 1
    again = trt_rt.load(tmp_path / "again.pt2")
    assert again.code == program.code
    torch.testing.assert_close(again(*_ARGS, flag=True), expected)
    manifest = json.loads(records_of(tmp_path / "again.pt2")[MANIFEST])
    assert (manifest["compute_capability"], manifest["gpu"]) == ("9.0", "NVIDIA H200")


@pytest.mark.usefixtures("any_backend")
def test_torch_export_load_gives_the_object_to_its_class(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's loader finds the graph and the engine's record; only the class is Torch-TensorRT's."""
    conversion.convert(_of_a_gpu(archive, tmp_path / "ours.pt2"), tmp_path / "theirs.pt2", version="2.13")
    found: list[PickledEngine] = []

    class Seen(Exception):
        pass

    def load_object(content: bytes) -> Any:
        found.append(read_engine(memoryview(content), "it"))
        raise Seen

    monkeypatch.setattr(torch._C, "_pickle_load_obj", load_object)
    with pytest.raises(Seen):
        torch.export.load(tmp_path / "theirs.pt2")
    plan = next(iter(json.loads(records_of(archive)[MANIFEST])["engines"]))["record"]
    assert found[0].plan == records_of(archive)[plan]


@pytest.mark.usefixtures("any_backend")
def test_the_shapes_are_those_that_torch_tensorrt_traces_with(archive: Path, tmp_path: Path) -> None:
    conversion.convert(_of_a_gpu(archive, tmp_path / "ours.pt2"), tmp_path / "theirs.pt2", version="2.13")
    fields = _state(records_of(tmp_path / "theirs.pt2")["data/constants/custom_obj_0"])
    metadata = pickle.loads(base64.b64decode(fields[7]))  # of our own making
    (given,), (result,) = (metadata["inout_symexprs"][kind] for kind in ("inputs", "outputs"))
    assert given["dtype"] is torch.float32
    assert given["shape_exprs"][1] == 4
    assert result["shape_exprs"] == [given["shape_exprs"][0], 8]


def test_a_program_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
    batch = trt_rt.Input(min_shape=(1, 4), opt_shape=(2, 4), max_shape=(9, 4))
    program = trt_rt.compile(model, inputs=[batch], backend="reference")
    path = tmp_path / "theirs.pt2"
    with pytest.raises(ArchiveError, match="'reference', and Torch-TensorRT runs engines of TensorRT only"):
        trt_rt.export_torch_tensorrt(program, path)
    monkeypatch.setattr(conversion, "_BACKENDS", ("reference",))
    with pytest.raises(ArchiveError, match="does not tell for which GPU"):
        trt_rt.export_torch_tensorrt(program, path)
    save = conversion.save

    def save_on_a_gpu(saved: Any, target: Path) -> None:
        save(saved, target.with_name("cpu.pt2"))
        _of_a_gpu(target.with_name("cpu.pt2"), target)

    monkeypatch.setattr(conversion, "save", save_on_a_gpu)
    trt_rt.export_torch_tensorrt(program, path, version="2.12")
    x = torch.randn(5, 4)
    torch.testing.assert_close(trt_rt.load(path)(x), model(x).detach())
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays"


def test_what_has_no_form_in_torch_tensorrt_is_refused(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "theirs.pt2"
    with pytest.raises(ArchiveError, match=r"no form for Torch-TensorRT '1\.0'"):
        conversion.convert(archive, target, version="1.0")
    exported = torch.export.export(torch.nn.Linear(4, 2), (torch.zeros(3, 4),))
    trt_rt.save(exported, tmp_path / "plain.pt2")
    with pytest.raises(ArchiveError, match="no engines"):
        conversion.convert(tmp_path / "plain.pt2", target)
    torch.export.save(exported, tmp_path / "torch.pt2")
    with pytest.raises(ArchiveError, match="nothing to convert"):
        conversion.convert(tmp_path / "torch.pt2", target)
    with pytest.raises(ArchiveError, match="other direction"):
        conversion.convert(tmp_path / "torch.pt2", target, version="2.13")
    assert not target.exists()


@pytest.mark.usefixtures("any_backend")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta["inputs"][0].update(name="a%b"), "separates names by '%'"),
        (lambda meta: meta["inputs"][0].update(location="host"), "shape tensors"),
        (lambda meta: meta.update(aliased_io={"output0": "input"}), "writes into its inputs"),
    ],
)
def test_engines_that_torch_tensorrt_cannot_describe(
    archive: Path, tmp_path: Path, change: Any, message: str
) -> None:
    def rewrite_meta(model: dict[str, Any]) -> None:
        for node in model["graph_module"]["graph"]["nodes"]:
            if "execute_engine" in node["target"]:
                meta = json.loads(node["inputs"][2]["arg"]["as_string"])
                change(meta)
                node["inputs"][2]["arg"]["as_string"] = json.dumps(meta)

    ours = rewrite(_of_a_gpu(archive, tmp_path / "gpu.pt2"), tmp_path / "ours.pt2", rewrite_meta)
    with pytest.raises(ArchiveError, match=message):
        conversion.convert(ours, tmp_path / "theirs.pt2")
    assert not (tmp_path / "theirs.pt2").exists()


@pytest.mark.usefixtures("any_backend")
def test_the_command_converts_both_ways(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs, again = (str(tmp_path / name) for name in ("ours.pt2", "theirs.ep", "again.pt2"))
    _of_a_gpu(archive, Path(ours))
    assert main(["convert", ours, "-o", theirs, "--torch-tensorrt", "2.13"]) == 0
    assert "a program with 1 engine, for Torch-TensorRT 2.13" in capsys.readouterr().out
    assert main(["convert", theirs, "-o", again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["form"] == "trt_rt"
    script = Example().saved(tmp_path / "model.ts")
    assert main(["convert", str(script), "-o", again]) == 0
    assert "a program with 2 engines, for trt_rt" in capsys.readouterr().out
    x = torch.randn(2, 4)
    torch.testing.assert_close(trt_rt.load(again)(x)[0], Example()(x)[0].detach())


def test_the_command_tells_errors_to_people(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "theirs.pt2")
    (tmp_path / "text").write_text("text")
    for arguments in (
        [str(archive), "-o", target],
        [str(tmp_path / "text"), "-o", target],
        [str(tmp_path / "none"), "-o", target],
        [str(archive), "-o", str(tmp_path / "missing" / "file")],
    ):
        assert main(["convert", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("trt-rt: ")
        assert "Traceback" not in error


@pytest.mark.behaviour(28)
def test_damaged_files_are_not_converted(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    path, target = tmp_path / "damaged.pt2", tmp_path / "target.pt2"
    digest = hashlib.sha256(content).hexdigest()
    for position in range(0, len(content), 211):
        changed = bytearray(content)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        with pytest.raises(ArchiveError):
            conversion.convert(path, target)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == digest
    assert not target.exists()
    assert MODEL in records_of(archive)
