"""Packages of compiled programs: `trt-rt package`, and what C++ gets from it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch

import trt_rt
from tests.deploy.building import Run
from tests.deploy.programs import export_affine
from trt_rt.cli import main
from trt_rt.compiled.torchscript import torchscript_calls, torchscript_module
from trt_rt.deploy.arguments import constants_as_arguments
from trt_rt.deploy.input_description import close_gaps, describe_input
from trt_rt.deploy.packaging import CONSTANTS_FILE, package_program
from trt_rt.errors import TRTError


class Mixed(torch.nn.Module):
    """Elementwise parts for engines, sizes between them, a product that stays in PyTorch, and state."""

    count: torch.Tensor
    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("weight", torch.linspace(-1, 1, 64).reshape(8, 8))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.count.add_(1)
        first = torch.relu(x * 2.0 + 1.0)
        with torch.no_grad():
            values, _ = torch.sort(first @ self.weight, dim=1, descending=True)
        return values.reshape(x.shape[0] * 2, 4) - 0.5, (y + first) * self.count


def load_script(path: Path) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(path))  # type: ignore[no-any-return]


def test_a_compiled_program_is_packaged_by_the_command(
    examples: Path, calls: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run by the example; its size of batch is not that of compilation, and its inputs lie in any way."""

    class Waves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(torch.sin(x) * 2.0 + 1.0)

    batch = torch.export.Dim("b", min=1, max=32)
    example = torch.ones(2, 16)[:, ::2]  # has gaps, unlike what C++ gives
    exported = torch.export.export(Waves(), (example,), dynamic_shapes={"x": {0: batch}})
    program = trt_rt.compile(exported, backend="reference", torch_executed_ops={"aten.sin.default"})
    trt_rt.save(program, tmp_path / "model.pt2")
    status = main(
        ["package", str(tmp_path / "model.pt2"), "-o", str(tmp_path / "app"), "--torchscript", "--json"]
    )
    assert status == 0
    found = json.loads(capsys.readouterr().out)
    assert found["engines"] == 1
    assert sorted(found["files"]) == ["constants.safetensors", "program.pt2", "program.ts"]
    result = run(examples / "aoti", tmp_path / "app")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("[4, 8] sum 85.85")
    result = run(calls, tmp_path / "app", "layouts")
    assert (result.returncode, result.stdout) == (0, "right\n"), result.stderr
    script = load_script(tmp_path / "app/program.ts")
    torch.testing.assert_close(script(torch.ones(5, 8)), Waves()(torch.ones(5, 8)))


def test_torchscript_of_engines_operators_sizes_and_state(tmp_path: Path) -> None:
    batch = torch.export.Dim("b", min=2, max=32)
    shapes = {"x": {0: batch}, "y": {0: batch}}
    example = (torch.randn(4, 8), torch.randn(4, 8))
    exported = torch.export.export(Mixed(), example, dynamic_shapes=shapes)
    program = trt_rt.compile(
        exported, backend="reference", torch_executed_ops={"torch.ops.aten.sort.default"}
    )
    with torchscript_calls():
        torchscript_module(program.exported(), flat_results=True).save(str(tmp_path / "program.ts"))
    script, model = load_script(tmp_path / "program.ts"), Mixed()
    for size in (4, 7, 2):
        x, y = torch.randn(size, 8), torch.randn(size, 8)
        for result, expected in zip(script(x, y), model(x, y), strict=True):
            torch.testing.assert_close(result, expected)


def test_a_program_without_engines(tmp_path: Path) -> None:
    exported = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    with pytest.raises(TRTError, match=r"the program has no engines\. Compile it with trt_rt\.compile"):
        package_program(exported, tmp_path / "app")
    assert not list(tmp_path.glob("app/*"))


def test_a_failure_leaves_the_earlier_package(
    package: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler")

    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    with pytest.raises(trt_rt.CompileError, match="no compiler"):
        package_program(export_affine(), copied)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


_PACKAGE = """
import sys
from pathlib import Path
from tests.deploy.programs import export_affine
from trt_rt.deploy.arguments import constants_as_arguments
from trt_rt.deploy.packaging import CONSTANTS_FILE, package_program

package_program(export_affine(), Path(sys.argv[1]))
"""

_STATIC_COMPILER = """#!/bin/sh
case " $* " in *" -c "*|*c++-header*) exec {compiler} "$@";; esac
exec {compiler} -static-libstdc++ -static-libgcc "$@"
"""


@pytest.mark.slow
def test_a_compiler_that_links_libstdcxx_statically(calls: Path, tmp_path: Path, run: Run) -> None:
    """A copy of libstdc++ in the program, beside PyTorch's, would break it at loading."""
    compiler = tmp_path / "g++"
    compiler.write_text(_STATIC_COMPILER.format(compiler=os.environ.get("CXX", shutil.which("g++"))))
    compiler.chmod(0o755)
    made = run(
        *(sys.executable, "-W", "error", "-c", _PACKAGE, tmp_path / "app"),
        CXX=str(compiler),
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"),
    )
    assert made.returncode == 0, made.stderr
    called = run(calls, tmp_path / "app", "wrong-shape")
    assert "the tensor given has shape [4, 9]" in called.stdout, called.stderr


_PACKAGE_THAT_IGNORES_ERRORS = """
from torch._inductor.codecache import AotCodeCompiler
compile_it = AotCodeCompiler.compile

def without_checks(graph, wrapper_code, *args, **kwargs):
    call = "aoti_torch_proxy_executor_call_function("
    assert call in wrapper_code
    wrapper_code = wrapper_code.replace("AOTI_TORCH_ERROR_CODE_CHECK(" + call, "(void)(" + call)
    return compile_it(graph, wrapper_code, *args, **kwargs)

AotCodeCompiler.compile = without_checks
"""


def test_a_compiled_program_that_ignores_an_engines_error(calls: Path, tmp_path: Path, run: Run) -> None:
    """The code that PyTorch 2.11 writes does, and gives undefined tensors as results."""
    made = run(sys.executable, "-c", _PACKAGE_THAT_IGNORES_ERRORS + _PACKAGE, tmp_path / "app")
    assert made.returncode == 0, made.stderr
    constants = bytearray((tmp_path / "app" / CONSTANTS_FILE).read_bytes())
    constants[-1] ^= 1  # of the plan, which the engine then refuses
    (tmp_path / "app" / CONSTANTS_FILE).write_bytes(constants)
    called = run(calls, tmp_path / "app", "call")
    assert called.returncode == 1
    assert "is damaged or another one: the SHA-256" in called.stderr


def test_plans_are_arguments_of_the_compiled_program(package: Path, tmp_path: Path) -> None:
    """AOTInductor before PyTorch 2.13 has no constants on the CPU in a program for CUDA."""
    program, arguments = constants_as_arguments(exported := export_affine(), {"plan"})
    assert list(arguments) == ["plan"]
    assert program.graph_signature.user_inputs == ("b_plan", "x")
    assert "plan" in exported.state_dict
    assert "plan" not in program.state_dict
    x = torch.randn(3, 8)
    assert torch.equal(program.module()(arguments["plan"], x), exported.module()(x))
    content = (package / CONSTANTS_FILE).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"] == {"arguments": "plan"}


def test_arguments_of_a_loaded_program_with_a_size_that_has_no_end(tmp_path: Path) -> None:
    class Repeated(torch.nn.Module):
        def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            return torch.relu(x * 2 + 1).repeat_interleave(times, dim=0)

    inputs = [torch.randn(4, 8), torch.tensor([0, 1, 2, 3])]
    trt_rt.save(trt_rt.compile(Repeated().eval(), inputs=inputs, backend="reference"), tmp_path / "model.pt2")
    exported = trt_rt.load(tmp_path / "model.pt2").exported()
    names = {name for name in exported.state_dict if name.endswith(".plan")}
    program, arguments = constants_as_arguments(exported, names)
    found = program.module()(*arguments.values(), *inputs)
    assert torch.equal(found, Repeated()(*inputs))


def test_arguments_of_a_program_with_weights_state_and_keywords() -> None:
    class Nested(Mixed):
        def forward(  # type: ignore[override]
            self, x: torch.Tensor, *, more: dict[str, torch.Tensor]
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return super().forward(x, more["y"])

    x, y = torch.randn(4, 8), torch.randn(4, 8)
    exported = torch.export.export(Nested(), (x,), {"more": {"y": y}})
    compiled = trt_rt.compile(
        exported, backend="reference", torch_executed_ops={"torch.ops.aten.sort.default"}
    ).exported()
    names = set(compiled.constants.keys() | compiled.state_dict.keys())
    plans = {name for name in names if "plan" in name}
    assert len(plans) == 2
    program, arguments = constants_as_arguments(compiled, plans)
    assert arguments.keys() == plans
    results = program.module()(*arguments.values(), x, more={"y": y})
    for result, expected in zip(results, Nested()(x, more={"y": y}), strict=True):
        torch.testing.assert_close(result, expected)


def test_inputs_are_described_for_callers_in_cpp() -> None:
    class Model(torch.nn.Module):
        def forward(
            self,
            x: torch.Tensor,
            mask: torch.Tensor,
            image: torch.Tensor,
            gaps: torch.Tensor,
            n: torch.Tensor,
        ) -> torch.Tensor:
            return torch.relu(x * mask + 1) + image.sum() + gaps.sum() + n

    rows = torch.export.Dim("rows", min=1, max=32)
    image = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)
    mask = torch.ones(3, 8, dtype=torch.bool)
    inputs = (torch.ones(3, 8), mask, image, torch.ones(4, 6)[:, ::2], torch.tensor(1.0))
    exported = torch.export.export(Model(), inputs, dynamic_shapes=({0: rows}, {0: rows}, None, None, None))
    placeholders = exported.graph.find_nodes(op="placeholder")
    for node in placeholders:
        close_gaps(node)
    lines = [describe_input(exported, node) for node in placeholders]
    symbol = lines[0].partition("1:32:")[2].partition(",")[0]
    assert lines == [
        f"x float32 cpu 1:32:{symbol},8 0,1",
        f"mask bool cpu 1:32:{symbol},8 0,1",
        "image float32 cpu 2,3,4,5 0,2,3,1",
        "gaps float32 cpu 4,3 0,1",
        "n float32 cpu - -",
    ]


def test_a_file_that_is_no_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.pt2").write_bytes(b"PK\x03\x04 and no more")
    assert main(["package", str(tmp_path / "model.pt2"), "-o", str(tmp_path / "app")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("trt-rt: ")
    assert "model.pt2" in error
    assert not (tmp_path / "app").exists()
