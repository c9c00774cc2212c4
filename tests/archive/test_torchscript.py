"""TorchScript files of Torch-TensorRT load without Torch-TensorRT and without torch.jit."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import trt_rt
from tests.archive.torchscript_files import Engine, Example, Part, engine_fields, write_torchscript
from tests.properties.examples import examples
from trt_rt.archive.inspection import ScriptContents, inspect_archive, verify_archive
from trt_rt.cli.main import main
from trt_rt.errors import ArchiveError, TRTError

_CODE = "code/__torch__/tests/archive/torchscript_files.py"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Example().saved(tmp_path_factory.mktemp("torchscript") / "model.ts")


@pytest.fixture(scope="module")
def model() -> Example:
    return Example()


def _changed(file: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A file with other records and right checksums."""
    with zipfile.ZipFile(file) as source:
        records = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
    change(records)
    with zipfile.ZipFile(target, "w") as written:
        for name, content in records.items():
            written.writestr(f"model/{name}", content)
    return target


def _with_code(file: Path, target: Path, old: str, new: str) -> Path:
    def change(records: dict[str, bytes]) -> None:
        name = next(each for each in records if each.startswith("code/") and old.encode() in records[each])
        records[name] = records[name].replace(old.encode(), new.encode())

    return _changed(file, target, change)


@pytest.mark.parametrize("before", [False, True])
def test_it_computes_what_the_model_does(tmp_path: Path, before: bool) -> None:
    model = Example(before=before)
    program = trt_rt.load(model.saved(tmp_path / "model.ts"))
    for batch in (3, 1, 9):
        x = torch.randn(batch, 4)
        torch.testing.assert_close(program(x), tuple(each.detach() for each in model(x)))
    assert [name for name, _ in program.named_children()][:2] == ["engine_0", "engine_1"]
    assert program.partition.engines[1].inputs[1].name == "b"


def test_every_control_works_on_it(file: Path, model: Example) -> None:
    program = trt_rt.load(file)
    x = torch.randn(2, 4)
    with trt_rt.enable_pre_allocated_outputs(program):
        first = program(x)[0]
        assert program(x)[0].data_ptr() == first.data_ptr()
    with pytest.raises(trt_rt.InputError, match="x"):
        program(torch.randn(10, 4))
    torch.testing.assert_close(program(x=x)[0], model(x)[0].detach())


def test_it_is_saved_as_an_archive_that_takes_every_batch(file: Path, model: Example, tmp_path: Path) -> None:
    trt_rt.save(trt_rt.load(file), tmp_path / "ours.pt2")
    program = trt_rt.load(tmp_path / "ours.pt2")
    x = torch.randn(7, 4)
    torch.testing.assert_close(program(x), tuple(each.detach() for each in model(x)))


def test_neither_torch_tensorrt_nor_a_pickle_is_loaded(file: Path) -> None:
    code = f"""
        import sys
        import torch, trt_rt
        def refuse(*args, **kwargs):
            raise AssertionError("called")
        sys.modules["torch_tensorrt"] = None
        torch.jit.load = torch.load = torch._C.import_ir_module = refuse
        sys.addaudithook(lambda event, args: refuse() if event == "pickle.find_class" else None)
        print(trt_rt.load({str(file)!r})(torch.ones(2, 4))[0].shape)
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "torch.Size([2, 8])"


def test_inspect_and_verify_tell_about_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = inspect_archive(file)
    assert isinstance(contents, ScriptContents)
    assert [engine.outputs for engine in contents.engines] == [("output0",), ("output0", "output1")]
    assert contents.operators["ops.tensorrt.execute_engine"] == 2
    verify_archive(file, None)
    assert main(["inspect", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "a TorchScript program of Torch-TensorRT"
    assert found["engines"][0]["compute_capability"] == "9.0"
    assert main(["inspect", str(file)]) == 0
    assert main(["verify", str(file)]) == 0


def test_a_signature_is_missing(file: Path) -> None:
    with pytest.raises(ArchiveError, match="not signed"):
        trt_rt.load(file, public_key=b"x" * 32)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_without_engines_is_named_as_such(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "model.ts")
    with pytest.raises(ArchiveError, match=r"TorchScript file without engines.*torch\.jit\.load"):
        trt_rt.load(tmp_path / "model.ts")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_engine_that_was_not_traced_tells_the_inputs(tmp_path: Path, model: Example) -> None:
    """Torch-TensorRT's compiler of TorchScript writes files without examples."""
    plan = trt_rt.build(model.network, (torch.zeros(3, 4),), backend="reference")
    part = Part(Engine(engine_fields(plan, "x", "output0"), [torch.zeros(3, 8)]))
    path = write_torchscript(part, (torch.zeros(3, 4),), tmp_path / "model.ts", traced=False)
    x = torch.randn(3, 4)
    torch.testing.assert_close(trt_rt.load(path)(x), model.network(x).detach())


_CALL = "torch.leaky_relu(input, 0.25)"


@pytest.mark.behaviour(25, 28)
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (_CALL, 'ops.aten.from_file("/etc/passwd")', "not among the operators"),
        (_CALL, 'ops.aten.save(input, "x")', "not among the operators"),
        (_CALL, 'ops.trt_rt.execute_engine([input], input, "")', "not among the operators"),
        (_CALL, 'torch.load("x")', "not among the operators"),
        (_CALL, 'torch._C.import_ir_module("x")', "not allowed"),
        (_CALL, '__import__("os").system("true")', "not allowed"),
        (_CALL, 'eval("1")', "not allowed"),
        (_CALL, "input.__class__", "not allowed"),
        (_CALL, "self.__class__", "no attribute"),
        (_CALL, "(lambda: input)()", "not allowed"),
        (_CALL, "[each for each in [input]]", "not allowed"),
        (_CALL, 'f"{input}"', "not allowed"),
        (_CALL, "(self).forward(input, )", "too deeply"),
        (_CALL, "(self).missing(input, )", "no method"),
        (_CALL, "CONSTANTS.c99", "no constant"),
        (_CALL, "input if bool(input) else input", "control flow"),
        (_CALL, "torch.leaky_relu(**input)", "not allowed"),
        (_CALL, "torch.mul(9223372036854775807, 9223372036854775807)", "too large"),
        (_CALL, "torch.leaky_relu(input, 0.25", "not TorchScript"),
        (_CALL, "(" * 200 + "input" + ")" * 200, "nested too deeply"),
        (_CALL, "input" + ".weight" * 5000, "nested too deeply"),
        (_CALL, "torch.mm(input, input)", "refuses its arguments"),
        (_CALL, 'torch.to(input, torch.device("xla:0"), 6)', "device"),
        ("    weight = self.weight\n", "    for i in [1]:\n      weight = self.weight\n", "control flow"),
        ("    weight = self.weight\n", "    while True:\n      weight = self.weight\n", "control flow"),
        ("    weight = self.weight\n", "    import os\n    weight = self.weight\n", "not allowed"),
        ("    weight = self.weight\n", '    weight = "text"\n', "not among the operators"),
        ("execute_engine([x], engine)", "execute_engine([x, x], engine)", "called with 2"),
        ("execute_engine([x], engine)", "execute_engine([x], x)", "other arguments"),
        ("execute_engine([x], engine)", "execute_engine([1], engine)", "something else than tensors"),
        ("    x: Tensor) -> Tuple", "    x: Dict[str, Tensor]) -> Tuple", "neither a tensor nor a tuple"),
        ("    x: Tensor) -> Tuple", "    __x: Tensor) -> Tuple", "not allowed as a name"),
    ],
)
def test_other_code_is_refused(file: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        trt_rt.load(_with_code(file, tmp_path / "changed.ts", old, new))


@pytest.mark.behaviour(28, 40)
def test_operators_are_called_with_the_checks_of_files(file: Path, tmp_path: Path, model: Example) -> None:
    program = trt_rt.load(_with_code(file, tmp_path / "a.ts", _CALL, "torch.empty_like(input)"))
    zeros = trt_rt.load(_with_code(file, tmp_path / "c.ts", _CALL, "torch.zeros_like(input)"))
    for _ in range(20):
        x = torch.randn(3, 4)
        torch.testing.assert_close(program(x), zeros(x))
    with pytest.raises(ArchiveError, match="'decimals' is 1000000"):
        trt_rt.load(_with_code(file, tmp_path / "b.ts", _CALL, "torch.round(input, decimals=1000000)"))


def test_conditions_that_are_known_are_decided(file: Path, model: Example, tmp_path: Path) -> None:
    old = "    weight = self.weight\n"
    x = torch.randn(2, 4)
    found = []
    for test in ("self.training", "not self.training"):
        new = f"    if {test}:\n      weight = self.weight\n    else:\n      weight = self.offset\n"
        found.append(trt_rt.load(_with_code(file, tmp_path / "changed.ts", old, new))(x)[0])
    torch.testing.assert_close(found[1], model(x)[0].detach())  # of a module in evaluation mode
    assert not torch.equal(found[0], found[1])


def test_short_code_that_takes_exponential_time_is_refused(file: Path, tmp_path: Path) -> None:
    doubled = "".join(f"    l{n + 1} = [l{n}, l{n}]\n" for n in range(60))
    old = "    weight = self.weight\n"
    path = _with_code(file, tmp_path / "lists.ts", old, f"{old}    l0 = [1]\n{doubled}")
    with pytest.raises(ArchiveError, match="steps"):
        trt_rt.load(path)
    methods = "".join(
        f"  def m{n}(self: Middle, y: Tensor) -> Tensor:\n"
        f"    a = (self).m{n + 1}(y, )\n    return (self).m{n + 1}(a, )\n"
        for n in range(60)
    )
    last = "  def m60(self: Middle, y: Tensor) -> Tensor:\n    return y\n"

    def change(records: dict[str, bytes]) -> None:
        name = next(each for each in records if each.startswith("code/") and old.encode() in records[each])
        text = records[name].decode().replace(old, f"{old}    z0 = (self).m0(y, )\n")
        records[name] = text.replace("  weight : Tensor\n", f"  weight : Tensor\n{methods}{last}").encode()

    with pytest.raises(ArchiveError, match="steps"):
        trt_rt.load(_changed(file, tmp_path / "methods.ts", change))


def test_lists_in_themselves_end(file: Path, tmp_path: Path) -> None:
    cycle = b"\x80\x02}X\x07\x00\x00\x00forward]q\x00h\x00as."
    shared = b"]q\x00(" + b"K\x01" + b"e" + b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(60))
    bomb = b"\x80\x02}X\x07\x00\x00\x00forward" + shared + b"q\xfe" + b"s."
    x = torch.randn(2, 4)
    for content in (cycle, bomb):

        def change(records: dict[str, bytes], content: bytes = content) -> None:
            records["traced_inputs.pkl"] = content

        path = _changed(file, tmp_path / "changed.ts", change)
        try:
            assert trt_rt.load(path)(x)[0].shape == (2, 8)  # no operator of PyTorch needs the examples
        except ArchiveError as error:
            assert "damaged" in str(error)  # noqa: PT017


class Bomb:
    """Unpickling it runs code."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)


@pytest.mark.behaviour(25, 28)
@pytest.mark.parametrize("record", ["data.pkl", "constants.pkl", "traced_inputs.pkl"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: pickle.dumps(Bomb()),
        lambda content: pickle.dumps({"forward": [Bomb()]}, protocol=2),
        lambda content: b"cos\nsystem\n(S'true'\ntR.",
        lambda content: content.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v3"),
        lambda content: content[: len(content) // 2],
        lambda content: b"",
    ],
)
def test_other_pickles_are_refused(file: Path, tmp_path: Path, record: str, change: Any) -> None:
    def replace(records: dict[str, bytes]) -> None:
        records[record] = change(records[record])

    with pytest.raises(ArchiveError):
        trt_rt.load(_changed(file, tmp_path / "changed.ts", replace))


@pytest.mark.behaviour(28)
def test_every_length_cut(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    path = tmp_path / "cut.ts"
    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        with pytest.raises(ArchiveError):
            trt_rt.load(path)


@pytest.mark.behaviour(28)
def test_flipped_bytes_are_refused_or_change_nothing(file: Path, tmp_path: Path, model: Example) -> None:
    content = file.read_bytes()
    path = tmp_path / "flipped.ts"
    x = torch.randn(2, 4)
    expected = model(x)[0].detach()
    for position in range(0, len(content), 41):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            program = trt_rt.load(path)
        except ArchiveError:
            continue
        torch.testing.assert_close(program(x)[0], expected)


@pytest.mark.behaviour(25, 28)
@examples(60)
@given(data=st.data())
def test_forged_records_are_refused_or_are_programs(file: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of a record changed, with right checksums: an error of trt_rt or a program, and nothing else."""

    def change(records: dict[str, bytes]) -> None:
        name = data.draw(st.sampled_from(sorted(each for each in records if each.endswith((".py", ".pkl")))))
        content = bytearray(records[name])
        for _ in range(data.draw(st.integers(1, 3))):
            if content:
                content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        records[name] = bytes(content)

    with contextlib.suppress(TRTError):
        trt_rt.load(_changed(file, tmp_path / "forged.ts", change))
