"""Compiled programs are kept on disk, found again, and never trusted when they are damaged."""

from __future__ import annotations

import errno
import gc
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trt_rt
from tests import isolated
from tests.runtime.played_rtx import GOOD, played_backend
from trt_rt.backend import load
from trt_rt.compiler import BuildOptions
from trt_rt.errors import ArchiveError, CompileError
from trt_rt.program import keeping, part_builder
from trt_rt.program.cache import CachedEngine, CachedProgram, ProgramCache
from trt_rt.program.pipeline import ModelSource, built_program
from trt_rt.program.settings import CompileSettings
from trt_rt.program.steps import shown_steps
from trt_rt.program.support import Exclusions


class Model(nn.Module):
    def __init__(self, subtract: bool = False, reverse: bool = False, axis: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.subtract, self.reverse, self.axis = subtract, reverse, axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        if self.subtract:
            y = x - y if self.reverse else y - x
        return torch.softmax(y, self.axis) * 2


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one for every engine that is built."""
    build = part_builder.build_plan
    built: list[object] = []

    def counting(*args: Any, **keywords: Any) -> Any:
        built.append(args)
        return build(*args, **keywords)

    monkeypatch.setattr(part_builder, "build_plan", counting)
    return built


def compiled(folder: Path | None, model: nn.Module | None = None, **settings: Any) -> trt_rt.Program:
    settings = {"inputs": [torch.ones(3, 4)], "backend": "reference", **settings}
    return trt_rt.compile((model or Model()).eval(), cache_dir=folder, **settings)


def of_size(size: int) -> CachedProgram:
    return CachedProgram("{}", (), (CachedEngine("engine_0", ("a",), bytes(size)),), [], {}, ())


def test_a_program_is_built_once(tmp_path: Path, builds: list[object]) -> None:
    first, second = compiled(tmp_path), compiled(tmp_path)
    assert len(builds) == 1
    assert second.partition == first.partition
    assert second.code == first.code
    x = torch.randn(3, 4)
    torch.testing.assert_close(second(x), first(x))


def test_without_a_folder_nothing_is_kept(tmp_path: Path, builds: list[object]) -> None:
    compiled(None)
    compiled(None)
    assert len(builds) == 2


def test_what_makes_another_program_makes_another_entry(tmp_path: Path, builds: list[object]) -> None:
    other_weights = Model()
    with torch.no_grad():
        other_weights.linear.bias[0] += 1
    batch = torch.export.Dim("batch", min=1, max=8)
    narrow = torch.export.Dim("batch", min=1, max=4)
    variants: list[dict[str, Any]] = [
        {},
        {"model": Model(subtract=True)},
        {"model": Model(subtract=True, reverse=True)},
        {"model": Model(axis=0)},
        {"model": other_weights},
        {"inputs": [torch.ones(2, 4)]},
        {"dynamic_shapes": ({0: batch},)},
        {"dynamic_shapes": ({0: narrow},)},
        {"precision": "bf16"},
        {"weight_streaming": True},
        {"torch_executed_ops": ["aten.softmax"], "min_block_size": 1},
    ]
    for variant in variants:
        compiled(tmp_path, **variant)
    assert len(list(tmp_path.glob("*.program"))) == len(variants)
    count = len(builds)
    for variant in variants:
        compiled(tmp_path, **variant)
    assert len(builds) == count


def test_a_hit_needs_neither_onnx_nor_a_builder(tmp_path: Path) -> None:
    """In a process of its own, since others have imported onnx here."""
    script = """
import sys, torch, trt_rt
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4)).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.fill_(0.5)
program = trt_rt.compile(model, inputs=[torch.ones(3, 4)], backend="reference", cache_dir=sys.argv[1])
print(program(torch.ones(3, 4))[0, 0].item(), "onnx" in sys.modules, "onnxscript" in sys.modules)
"""
    results = []
    for seed in ("1", "2"):  # another order of sets and dicts must not be another program
        done = isolated.run_python(script, tmp_path, PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        results.append(done.stdout)
    assert results == ["5.5 False False\n"] * 2
    assert len(list(tmp_path.glob("*.program"))) == 1


class Glued(nn.Module):
    """Has in PyTorch what a kept program must have: weights of each kind, state, nested arguments."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(4))
        self.register_buffer("scale", torch.full((4,), 0.5), persistent=False)

    def forward(self, x: torch.Tensor, more: dict[str, list[torch.Tensor]]) -> dict[str, torch.Tensor]:
        y = torch.fft.fft(torch.relu(self.linear(x)) * 2 + 1).real * self.scale
        self.count.add_(1)
        return {"y": torch.sqrt(y * y + 1) + more["b"][0], "count": self.count * 1}


def glued(folder: Path, model: nn.Module, **settings: Any) -> trt_rt.Program:
    batch = torch.export.Dim("batch", min=1, max=8)
    return trt_rt.compile(
        model.eval(),
        inputs=[torch.ones(3, 4), {"b": [torch.ones(4)]}],
        dynamic_shapes=({0: batch}, {"b": [None]}),
        backend="reference",
        min_block_size=1,
        torch_executed_modules=["linear"],
        cache_dir=folder,
        **settings,
    )


def test_a_hit_needs_no_second_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = glued(tmp_path, Glued())

    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was made functional again")

    model = Glued()
    with monkeypatch.context() as patch:
        patch.setattr(torch.export.ExportedProgram, "run_decompositions", fail)
        second = glued(tmp_path, model)
    assert second.partition == first.partition
    assert any("torch.fft.fft" in step.source for step in second.partition.splits)
    assert str(second.signature) == str(first.signature)
    x, more = torch.randn(5, 4), {"b": [torch.randn(4)]}
    expected = model(x, more)
    for _ in range(2):  # the program has a buffer of its own
        found = second(x, more=more)
        torch.testing.assert_close(found, expected)
        expected = {**expected, "count": expected["count"] + 1}
    with torch.no_grad():
        model.linear.weight.zero_()  # in PyTorch, so shared
        model.linear.bias.zero_()
        torch.testing.assert_close(second(x, more)["y"], model(x, more)["y"])
    assert glued(tmp_path, Glued(), check="eager").partition == first.partition


def test_lines_of_a_hit_are_the_model_s_present_ones(tmp_path: Path) -> None:
    source = "import torch\nclass Moving(torch.nn.Module):\n    def forward(self, x):\n        return {}\n"
    lines = []
    for start in ("", "\n\n\n"):
        path = tmp_path / "moving.py"
        path.write_text(start + source.format("torch.exp(torch.fft.fft(x * 2).real + 1)"))
        scope: dict[str, Any] = {}
        exec(compile(path.read_text(), str(path), "exec"), scope)
        program = compiled(tmp_path / "cache", scope["Moving"](), min_block_size=1)
        lines.append(program.partition.splits[0].source)
    assert len(list((tmp_path / "cache").glob("*.program"))) == 1
    assert ["line 4" in lines[0], "line 7" in lines[1]] == [True, True]


def test_modules_count_where_the_user_names_them(tmp_path: Path) -> None:
    """Two models of the same operators, whose submodules have each other's name."""

    class Named(nn.Module):
        def __init__(self, swapped: bool) -> None:
            super().__init__()
            self.one, self.two = nn.ReLU(), nn.ReLU()
            self.swapped = swapped

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, last = (self.two, self.one) if self.swapped else (self.one, self.two)
            return last(torch.exp(first(x * 2)) + 1)

    found = [
        compiled(tmp_path, Named(swapped), min_block_size=1, torch_executed_modules=["one"]).partition
        for swapped in (False, True, False)
    ]
    assert found[0] == found[2] != found[1]
    assert len(list(tmp_path.glob("*.program"))) == 2


def test_what_cannot_be_described_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Added(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(torch.fft.fft(x * 2).real + 1)

    def refuse(*_: Any) -> Any:
        raise ArchiveError("PyTorch cannot describe the program")

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.INFO, "trt_rt.compiler"):
        patch.setattr(keeping, "exported_to_json", refuse)
        program = compiled(tmp_path, Added(), min_block_size=1)
    assert "the program is not kept: PyTorch cannot describe" in caplog.text
    assert not list(tmp_path.glob("*.program"))
    assert torch.isfinite(program(torch.ones(3, 4))).all()


def test_an_entry_that_says_something_else_is_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A whole file whose graph this version does not take, such as one with an unknown operator."""
    compiled(tmp_path)
    cache = ProgramCache(tmp_path)
    (entry,) = cache.entries()
    kept = cache.load(entry.key)
    assert kept is not None
    for graph in ("{}", kept.graph.replace("execute_engine", "other")):
        cache.store(entry.key, replace(kept, graph=graph), model="Model", backend="reference")
        with caplog.at_level(logging.WARNING, "trt_rt.compiler"):
            program = compiled(tmp_path)
        assert "is damaged" in caplog.text
        caplog.clear()
        assert torch.isfinite(program(torch.ones(3, 4))).all()
        assert cache.load(entry.key) == kept


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "replaced"])
def test_a_damaged_entry_is_built_again(
    tmp_path: Path, builds: list[object], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    compiled(tmp_path)
    (entry,) = tmp_path.glob("*.program")
    content = bytearray(entry.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    damaged = {"cut": content[:-10], "flipped": content, "emptied": b"", "replaced": b"x" * 500}[damage]
    entry.write_bytes(damaged)
    with caplog.at_level(logging.WARNING, "trt_rt.compiler"):
        program = compiled(tmp_path)
    assert "is damaged" in caplog.text
    assert len(builds) == 2
    assert torch.isfinite(program(torch.ones(3, 4))).all()
    compiled(tmp_path)
    assert len(builds) == 2


def test_any_single_byte_that_changes_is_noticed(tmp_path: Path) -> None:
    cache = ProgramCache(tmp_path)
    program = CachedProgram(
        graph="{}",
        operators=("aten.fft_fft.default",),
        engines=(CachedEngine("engine_0", ("a", "b"), b"plan"),),
        partition=[{"name": "c", "reason": "why"}],
        origins={"c": "d"},
        written=("state",),
    )
    cache.store("00", program, model="M", backend="reference")
    (entry,) = tmp_path.glob("*.program")
    content = entry.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 0x55
        entry.write_bytes(changed)
        assert cache.load("00") is None
        entry.write_bytes(content)
    assert cache.load("00") == program


def test_the_least_recently_used_goes(tmp_path: Path) -> None:
    cache = ProgramCache(tmp_path, limit_bytes=3000)
    program = of_size(1000)
    for number, key in enumerate(("00", "01")):
        cache.store(key, program, model="M", backend="reference")
        os.utime(tmp_path / f"{key}.program", (number, number))
    assert cache.load("00") is not None  # now 01 is the one used least recently
    cache.store("02", program, model="M", backend="reference")
    assert {entry.key for entry in cache.entries()} == {"00", "02"}
    too_large = of_size(3001)
    cache.store("03", too_large, model="M", backend="reference")
    assert {entry.key for entry in cache.entries()} == {"00", "02"}


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "trt_rt.compiler"):
        compiled(tmp_path / "file" / "folder")
    assert "the program is not kept in" in caplog.text


def test_a_build_that_fails_or_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (KeyboardInterrupt, MemoryError):

        def fail(*_: Any, kind: type[BaseException] = error, **__: Any) -> Any:
            raise kind

        monkeypatch.setattr(part_builder, "build_plan", fail)
        with pytest.raises(error):
            compiled(tmp_path)
        assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    monkeypatch.undo()
    compiled(tmp_path)  # nobody holds the lock


def test_what_the_builder_refused_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise CompileError("out of memory")

    monkeypatch.setattr(part_builder, "build_plan", refuse)
    with pytest.warns(UserWarning, match="no part of Model"):
        compiled(tmp_path)
    monkeypatch.undo()
    assert len(compiled(tmp_path).partition.engines) == 1


def test_two_processes_build_once(tmp_path: Path) -> None:
    script = """
import sys, torch, trt_rt
from pathlib import Path
from trt_rt.program import part_builder
folder = Path(sys.argv[1])
build = part_builder.build_plan
def counting(*args, **keywords):
    (folder / f"built by {sys.argv[2]}").touch()
    return build(*args, **keywords)
part_builder.build_plan = counting
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4)).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.fill_(0.5)
print("ready", flush=True)
sys.stdin.readline()
trt_rt.compile(model, inputs=[torch.ones(3, 4)], backend="reference", cache_dir=folder)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=isolated.environment(),
        )
        for name in ("one", "other")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("\n")
        assert process.returncode == 0
    assert len(list(tmp_path.glob("built by *"))) == 1


def test_the_folder_is_the_environment_s_or_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: list[object]
) -> None:
    monkeypatch.setenv("TRT_RT_CACHE_DIR", str(tmp_path / "mine"))
    trt_rt.compile(Model().eval(), inputs=[torch.ones(3, 4)], backend="reference")
    assert len(list((tmp_path / "mine").glob("*.program"))) == 1
    monkeypatch.delenv("TRT_RT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    trt_rt.compile(Model().eval(), inputs=[torch.ones(3, 4)], backend="reference")
    assert len(list((tmp_path / "home" / "trt_rt").rglob("*.program"))) == 1


def test_a_full_folder_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING, "trt_rt.compiler"):
        program = compiled(tmp_path)
    assert "the program is not kept in" in caplog.text
    assert "No space left on device" in caplog.text
    assert torch.isfinite(program(torch.ones(3, 4))).all()
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_process_that_is_killed_while_it_builds_leaves_nothing_in_the_way(
    tmp_path: Path, builds: list[object]
) -> None:
    script = """
import sys, time, torch, trt_rt
from pathlib import Path
from tests.program.test_cache import compiled
from trt_rt.program import part_builder
def build(*args, **keywords):
    print("building", flush=True)
    time.sleep(600)
part_builder.build_plan = build
compiled(Path(sys.argv[1]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(trt_rt.__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    process.kill()
    process.communicate()
    compiled(tmp_path)  # the lock went with the process
    assert len(builds) == 1
    assert len(list(tmp_path.glob("*.program"))) == 1


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    old, new, other = (tmp_path / f".{digit * 40}.{'0' * 16}" for digit in "abc")
    (tmp_path / ".0.lock").touch()
    for path in (old, new, other):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    compiled(tmp_path)
    assert not old.exists()
    assert new.exists()  # somebody may be writing it
    ProgramCache(tmp_path).clear()
    assert [path.name for path in tmp_path.glob(".*") if path.suffix != ".lock"] == []
    assert (tmp_path / ".0.lock").exists()


def test_kernels_of_tensorrt_rtx_are_kept_with_their_program(tmp_path: Path) -> None:
    settings = CompileSettings(
        backend=load("reference"),
        device=torch.device("cpu"),
        exclusions=Exclusions(),
        options=BuildOptions(),
        min_block_size=1,
        require_full_compilation=False,
        truncate_double=False,
    )
    x = torch.ones(3, 4)
    source = ModelSource(torch.export.export(Model().eval(), (x,)), "Model")
    with shown_steps(False) as steps:
        built, _ = built_program(source, settings, cache_dir=None, steps=steps)
    cache = ProgramCache(tmp_path)
    assert cache.kernels_of("00") is None
    cache.store("00", of_size(300), model="Model", backend="tensorrt_rtx")
    without = cache.entries()[0].size
    program = built.load(played_backend(), settings.device, cache.kernels_of("00"))
    torch.testing.assert_close(program(x), Model()(x).detach())
    del program
    gc.collect()
    (file,) = tmp_path.glob("*.kernels")
    assert file.read_bytes().startswith(GOOD)
    (entry,) = cache.entries()
    assert entry.size == without + file.stat().st_size
    # Other backends have no such settings.
    assert built.load(settings.backend, settings.device, cache.kernels_of("00")).engine_0.settings is None
    assert cache.clear() == (1, entry.size)
    assert not list(tmp_path.iterdir())


def test_a_hit_with_a_real_builder_imports_no_onnx(tmp_path: Path) -> None:
    """The first process converts and builds; the second finds the plan by the key of the exported model."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="the TensorRT-RTX wheels are not installed")
    pytest.importorskip("onnxscript", reason="the package onnxscript is not installed")
    script = """
import sys, torch
from trt_rt.backend import load
from trt_rt.compiler import BuildOptions
from trt_rt.program.pipeline import ModelSource, built_program
from trt_rt.program.pipeline import ModelSource, built_program
from trt_rt.program.settings import CompileSettings
from trt_rt.program.steps import shown_steps
from trt_rt.program.support import Exclusions
settings = CompileSettings(
    backend=load("tensorrt_rtx"), device=torch.device("cpu"), exclusions=Exclusions(), options=BuildOptions(),
    min_block_size=1, require_full_compilation=False, truncate_double=False,
)
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.fill_(0.5)
source = ModelSource(torch.export.export(model, (torch.ones(3, 4),)), "Model")
with shown_steps(False) as steps:
    built, _ = built_program(source, settings, cache_dir=sys.argv[1], steps=steps)
print(built.plans["engine_0"][:4].decode(), "onnx" in sys.modules, "onnxscript" in sys.modules)
"""
    printed = []
    for _ in range(2):
        done = isolated.run_python(script, tmp_path)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.splitlines()[-1])
    assert printed == ["vtrt True True", "vtrt False False"]
