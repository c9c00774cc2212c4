"""A program is the same after it was saved and loaded."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import ExportedProgram

import trt_rt
from tests.archive.saved import MANIFEST, MODEL, forge, records_of, rewrite
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt.archive import load, save
from trt_rt.errors import ArchiveError, InputError, PlanError
from trt_rt.runtime import enable_pre_allocated_outputs


def _inputs(batch: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return torch.randn(batch, 4), {"q": torch.ones(2)}


def _expected(exported: ExportedProgram, calls: list[tuple[Any, ...]]) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own, of its own code
        module = exported.module(check_guards=False)
    return [module(*args, flag=True) for args in calls]


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("verify", [True, False])
def test_results_are_those_of_the_program(
    exported: ExportedProgram, archive: Path, eager: bool, verify: bool
) -> None:
    program = load(archive, eager=eager, verify=verify)
    calls = [_inputs(batch) for batch in (5, 1, 9)]
    expected = _expected(exported, calls)
    # The buffer counts calls in both.
    program.weights.calls.copy_(exported.state_dict["calls"] - len(calls))
    for args, result in zip(calls, expected, strict=True):
        torch.testing.assert_close(program(*args, flag=True), result)
    assert not program(*_inputs(2), flag=True)["last"].requires_grad


def test_a_loaded_program_is_exported_with_the_sizes_that_vary(tmp_path: Path) -> None:
    """torch.complex asks for the numbers of sizes where PyTorch only looks at what an operator returns."""

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.complex((x * 2 + 1).relu() * 3, x).abs()

    batch = torch.export.Dim("batch", min=1, max=16)
    program = trt_rt.compile(
        Model(), inputs=[torch.ones(2, 4)], dynamic_shapes=({0: batch},), backend="reference", cache_dir=None
    )
    save(program, tmp_path / "model.pt2")
    x = torch.randn(5, 4)
    exported = load(tmp_path / "model.pt2").exported()
    torch.testing.assert_close(exported.module()(x), Model()(x))


def test_state_is_the_program_s_own(archive: Path) -> None:
    first, second = load(archive), load(archive)
    first(*_inputs(2), flag=True)
    assert first.weights.calls[0] == second.weights.calls[0] + 1
    content = archive.read_bytes()
    first.weights.calls.fill_(7)
    assert archive.read_bytes() == content


def test_engines_are_called_directly(archive: Path) -> None:
    program = load(archive)
    assert [name for name, _ in program.named_children()] == ["engine_0", "weights"]
    assert "execute_engine" not in program.code
    with enable_pre_allocated_outputs(program):
        results = [program(*_inputs(2), flag=True) for _ in range(3)]
    assert len(results) == 3
    assert program.engine_0.modes.pre_allocated_outputs == 0


def test_arguments_are_checked_as_before(archive: Path) -> None:
    program = load(archive)
    x, more = _inputs(2)
    for args, kwargs, message in (
        ((torch.zeros(10, 4), more), {"flag": True}, "1 to 9"),
        ((x.double(), more), {"flag": True}, "float32"),
        ((x, {"r": more["q"]}), {"flag": True}, "the keys"),
        ((x, more), {"flag": False}, "compiled for True"),
    ):
        with pytest.raises(InputError, match=message):
            program(*args, **kwargs)
    with pytest.raises(TypeError, match="flag"):
        program(x, more)


def test_torch_export_opens_the_file(exported: ExportedProgram, archive: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        opened = torch.export.load(archive)
    args = _inputs(3)
    program = load(archive)
    torch.testing.assert_close(opened.module(check_guards=False)(*args, flag=True), program(*args, flag=True))


def test_a_file_of_torch_export_is_loaded(exported: ExportedProgram, tmp_path: Path) -> None:
    path = tmp_path / "of_torch.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.export.save(exported, path)
    save(exported, tmp_path / "ours.pt2")
    args = _inputs(3)
    ours, theirs = load(tmp_path / "ours.pt2"), load(path)
    torch.testing.assert_close(theirs(*args, flag=True), ours(*args, flag=True))
    content = bytearray(path.read_bytes())
    content[content.index(b'"nodes"') + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="checksum"):
        load(path)


def test_parameters_keep_names_that_are_also_names_of_python(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, input: torch.Tensor, *, filter: torch.Tensor) -> torch.Tensor:
            return input - filter

    arguments = {"input": torch.ones(2, 3), "filter": torch.zeros(2, 3)}
    program = trt_rt.compile(Model().eval(), kwarg_inputs=arguments, backend="reference")
    trt_rt.save(program, tmp_path / "model.pt2")
    for again in (trt_rt.load(tmp_path / "model.pt2"), torch.export.load(tmp_path / "model.pt2").module()):
        assert torch.equal(again(**arguments), torch.ones(2, 3))
    assert trt_rt.load(tmp_path / "model.pt2").exported().graph_signature.user_inputs == ("input", "filter")


def test_what_has_no_engine_is_saved_too(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()).eval()
    exported = torch.export.export(model, (torch.zeros(3, 4),))
    save(exported, tmp_path / "a.pt2")
    x = torch.randn(3, 4)
    torch.testing.assert_close(load(tmp_path / "a.pt2")(x), model(x).detach())
    assert str(load(tmp_path / "a.pt2").partition).startswith("no engines; PyTorch runs everything")


def test_weights_that_share_memory_share_it_again(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            memory = torch.arange(24.0)
            self.register_buffer("all", memory)
            self.register_buffer("part", memory[4:20].view(4, 4).t())
            self.register_buffer("empty", torch.empty(0, 3))
            self.register_buffer("short", torch.ones(3, dtype=torch.bfloat16))

        def forward(self, x: torch.Tensor) -> Any:
            return x + self.part, self.all * 1, self.empty * 1, self.short * 1

    exported = torch.export.export(Model(), (torch.zeros(4, 4),))
    save(exported, tmp_path / "a.pt2")
    program = load(tmp_path / "a.pt2")
    torch.testing.assert_close(program(torch.zeros(4, 4)), Model()(torch.zeros(4, 4)))
    program.weights.all.zero_()
    assert program(torch.zeros(4, 4))[0].count_nonzero() == 0
    assert program.weights.part.stride() == (1, 4)


def test_host_copies_of_plans_are_dropped(archive: Path) -> None:
    program = load(archive)
    maps = Path("/proc/self/maps")
    gc.collect()
    assert str(archive) not in maps.read_text()
    lazy = load(archive, eager=False)
    gc.collect()
    assert str(archive) in maps.read_text()
    lazy(*_inputs(2), flag=True)
    gc.collect()
    assert str(archive) not in maps.read_text()
    assert program(*_inputs(2), flag=True)["last"].shape == (2, 2)


@pytest.mark.behaviour(26)
def test_a_newer_format_is_refused(archive: Path, tmp_path: Path) -> None:
    records = records_of(archive)
    manifest = json.loads(records[MANIFEST])
    records[MANIFEST] = json.dumps({**manifest, "version": 2}).encode()
    with pytest.raises(ArchiveError, match=r"format version 2, and this trt_rt reads 1: install"):
        load(forge(records, tmp_path / "a.pt2"))


def _with_manifest(archive: Path, target: Path, **changes: Any) -> Path:
    records = records_of(archive)
    manifest = json.loads(records[MANIFEST])
    records[MANIFEST] = json.dumps({**manifest, **changes}).encode()
    return forge(records, target)


@pytest.mark.behaviour(26)
def test_another_platform_is_refused(archive: Path, tmp_path: Path) -> None:
    path = _with_manifest(archive, tmp_path / "a.pt2", backend="tensorrt", platform="Linux riscv64")
    with pytest.raises(ArchiveError, match="made on Linux riscv64"):
        load(path)


@pytest.mark.behaviour(26)
def test_another_backend_is_refused(archive: Path) -> None:
    with pytest.raises(PlanError, match=r"program\.pt2, record 'data/weights/weight_\d'.*'reference' can"):
        load(archive, backend="tensorrt_lean")


@pytest.mark.behaviour(26)
def test_the_error_of_a_refused_plan_tells_where_it_was_made(archive: Path, tmp_path: Path) -> None:
    path = _with_manifest(archive, tmp_path / "a.pt2", compute_capability="8.6", tensorrt_version="10.1.0.0")
    with pytest.raises(PlanError, match=r"compute capability 8\.6, reference 10\.1"):
        load(path, backend="tensorrt_lean")


@pytest.mark.behaviour(26)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusals are those of a machine without a GPU")
def test_a_file_for_another_device_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="saved for device='cpu' and cannot run on cuda"):
        load(archive, device="cuda")

    def change(model: dict[str, Any]) -> None:
        for tensor in model["graph_module"]["graph"]["tensor_values"].values():
            tensor["device"] = {"type": "cuda", "index": 0}

    with pytest.raises(ArchiveError, match="saved for a GPU, and PyTorch sees none"):
        load(rewrite(archive, tmp_path / "a.pt2", change))


def test_a_plan_that_is_not_the_described_one(archive: Path, tmp_path: Path) -> None:
    records = records_of(archive)
    name = json.loads(records[MANIFEST])["engines"][0]["record"]
    records[name] = records[name][:-1] + b"\x01"
    with pytest.raises(ArchiveError, match="not the plan that the program describes"):
        load(forge(records, tmp_path / "a.pt2"))


def test_a_weight_that_reaches_beyond_its_record(archive: Path, tmp_path: Path) -> None:
    records = records_of(archive)
    config = "data/weights/model_weights_config.json"
    value = json.loads(records[config])
    for change in ({"sizes": [{"as_int": 1 << 40}]}, {"storage_offset": {"as_int": 1 << 40}}):
        changed = json.loads(json.dumps(value))
        changed["config"]["calls"]["tensor_meta"].update(change)
        records[config] = json.dumps(changed).encode()
        with pytest.raises(ArchiveError, match="reaches beyond its record"):
            load(forge(records, tmp_path / "a.pt2"))


def test_a_full_disk_leaves_the_old_file_whole(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(b"old")
    code = """
    import resource, signal, sys, warnings
    import torch
    warnings.simplefilter("ignore")
    from trt_rt.archive import save
    model = torch.nn.Linear(1000, 100)
    exported = torch.export.export(model, (torch.zeros(1, 1000),))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        save(exported, sys.argv[1])
    except OSError as error:
        print(error.strerror)
    """
    result = _run(code, path)
    assert result.stdout == "cannot write the file: File too large; the old file is unchanged\n", (
        result.stderr
    )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _run(code: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    root = str(Path(trt_rt.__file__).parents[1])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
        check=False,
        env={**os.environ, "PYTHONPATH": search},
    )


def test_a_runtime_needs_no_compiler(archive: Path) -> None:
    code = """
    import sys, warnings
    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.startswith(("trt_rt.compiler", "trt_rt.program", "trt_rt.demo")):
                raise ImportError(f"{name} is blocked")
    sys.meta_path.insert(0, Blocked())
    sys.modules.update(dict.fromkeys(("onnx", "onnxscript", "onnxruntime", "cryptography", "rich")))
    import torch, trt_rt
    program = trt_rt.load(sys.argv[1])
    print(tuple(program(torch.zeros(2, 4), {"q": torch.ones(2)}, flag=True)["last"].shape))
    with trt_rt.enable_pre_allocated_outputs(program):
        program(torch.zeros(2, 4), {"q": torch.ones(2)}, flag=True)
    trt_rt.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), sys.argv[2])
    """
    result = _run(code, archive, archive.parent / "again.pt2")
    assert result.stdout == "(2, 2)\n", result.stderr


def test_the_model_record_has_no_paths_of_the_author(archive: Path) -> None:
    assert str(Path(__file__).parent).encode() not in records_of(archive)[MODEL]
