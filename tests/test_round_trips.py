"""The table of docs/files.md: what goes through which of PyTorch's formats, one test for each cell."""

from __future__ import annotations

import copy
import functools
import io
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim

import trt_rt
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt import Program

_ROOT = Path(__file__).parents[1]
_BATCHES = (5, 9)
_LARGEST = 40

pytestmark = [
    # Every call of torch.jit warns of its age.
    pytest.mark.filterwarnings(r"ignore:.*torch\.jit\..* is deprecated:DeprecationWarning"),
    # PyTorch's own, of saving and decomposing programs.
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
]


class _One(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(4, 8)
        self.second = torch.nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.second(torch.relu(self.first(x)))


class _Several(_One):
    def forward(self, x: torch.Tensor) -> Any:
        hidden = torch.relu(self.first(x))
        return self.second(hidden), torch.cat([hidden, hidden])


class _DataDependent(_One):
    def forward(self, x: torch.Tensor) -> Any:
        hidden = self.first(x)
        rows = torch.nonzero(hidden.sum(1) > 0)[:, 0]
        return self.second(hidden[rows])


class _Parts(_One):
    def forward(self, x: torch.Tensor) -> Any:
        hidden = torch.softmax(torch.fft.fft(self.first(x)).real, -1)
        return self.second(hidden) * x.shape[0]


_COLUMNS: dict[str, type[_One]] = {
    "one output": _One,
    "several outputs": _Several,
    "sizes that depend on data": _DataDependent,
    "PyTorch operators between engines": _Parts,
}


@functools.cache
def _program(column: str) -> Program:
    batch = trt_rt.Input(min_shape=(2, 4), opt_shape=(5, 4), max_shape=(_LARGEST, 4))
    program = trt_rt.compile(
        _COLUMNS[column]().eval(), inputs=[batch], backend="reference", cache_dir=None, min_block_size=1
    )
    assert len(program.partition.engines) == (2 if column.startswith("PyTorch") else 1)
    return program


def _inputs() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, 4) for batch in _BATCHES]


class _Outer(torch.nn.Module):
    """A model that has a program in it."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: torch.Tensor) -> Any:
        return self.program(x)


def _exported_model(column: str) -> torch.export.ExportedProgram:
    batch = Dim("batch", min=2, max=_LARGEST)
    return torch.export.export(_Outer(_program(column)), (_inputs()[0],), dynamic_shapes={"x": {0: batch}})


def _traced(column: str) -> Any:
    return torch.jit.trace(_program(column), (_inputs()[0],))


_Results = Callable[[str], list[Any]]


def _of(make: Callable[[str], Callable[[torch.Tensor], Any]]) -> _Results:
    """Results of a call in this process."""

    def results(column: str) -> list[Any]:
        call = make(column)
        return [call(x) for x in _inputs()]

    return results


def _scripted(column: str) -> Any:
    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = _traced(column)

        def forward(self, x: torch.Tensor):
            return self.program(x)

    return _reloaded(torch.jit.script(Outer()))


def _reloaded(module: Any) -> Any:
    file = io.BytesIO()
    torch.jit.save(module, file)
    file.seek(0)
    return torch.jit.load(file)


class _Model(torch.nn.Module):
    """A model that calls a program's engines, as far as torch.fx follows Python."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.engines = torch.nn.ModuleList(
            module for module in program.children() if isinstance(module, trt_rt.TRTModule)
        )

    def forward(self, x: torch.Tensor) -> Any:
        first, *others = self.engines
        result = first(x)
        for engine in others:
            result = engine(torch.view_as_real(torch.fft.fft(result))) * x.shape[0]
        return result


def _symbolic(column: str) -> Callable[[torch.Tensor], Any]:
    return torch.fx.symbolic_trace(_Model(_program(column)))


def _compiled(column: str) -> Callable[[torch.Tensor], Any]:
    torch._dynamo.reset()
    return torch.compile(_program(column), backend="aot_eager", fullgraph=True, dynamic=True)


def _with_loaded_state(column: str) -> Callable[[torch.Tensor], Any]:
    file = io.BytesIO()
    torch.save(_program(column).state_dict(), file)
    file.seek(0)
    program = copy.deepcopy(_program(column))
    for tensor in program.state_dict().values():
        tensor.zero_()
    program.load_state_dict(torch.load(file, weights_only=True))
    return program


_LOAD = """
import sys
import torch
import trt_rt

kind, folder = sys.argv[1:]
inputs = torch.load(f"{folder}/inputs", weights_only=True)
for number in range(4):
    path = f"{folder}/{number}.{kind}"
    if kind == "aoti.pt2":
        call = torch._inductor.aoti_load_package(path)
    else:
        call = torch.jit.load(path) if kind == "ts" else torch.export.load(path).module()
    torch.save([call(x) for x in inputs], f"{folder}/{number}.{kind}.results")
"""


def _elsewhere(folder: Path, kind: str, write: Callable[[str, Path], None]) -> list[list[Any]]:
    """Results of files in a process that has nothing but them."""
    torch.save(_inputs(), folder / "inputs")
    for number, column in enumerate(_COLUMNS):
        write(column, folder / f"{number}.{kind}")
    search = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, kind, str(folder)],
        capture_output=True,
        text=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
        check=False,
        env={**os.environ, "PYTHONPATH": search},
    )
    assert done.returncode == 0, done.stderr
    return [
        torch.load(folder / f"{number}.{kind}.results", weights_only=True) for number in range(len(_COLUMNS))
    ]


def _spawned(files: list[str], inputs: list[Any], results: Any) -> None:
    results.put(
        [[_lists(torch.export.load(file).module()(torch.tensor(x))) for x in inputs] for file in files]
    )


def _lists(result: Any) -> Any:
    return [each.tolist() for each in result] if isinstance(result, (tuple, list)) else result.tolist()


def _in_spawned_process(folder: Path) -> list[list[Any]]:
    files = []
    for number, column in enumerate(_COLUMNS):
        files.append(str(folder / f"{number}.pt2"))
        torch.export.save(_program(column).exported(), files[-1])
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_spawned, args=(files, [x.tolist() for x in _inputs()], results))
    process.start()
    found = results.get(timeout=SECONDS_UNTIL_DEADLOCK)
    process.join()
    tensors: list[list[Any]] = []
    for column, of_column in zip(_COLUMNS, found, strict=True):
        is_several = isinstance(_program(column)(_inputs()[0]), tuple)
        tensors.append(
            [tuple(map(torch.tensor, each)) if is_several else torch.tensor(each) for each in of_column]
        )
    return tensors


def _save_exported(column: str, path: Path) -> None:
    torch.export.save(_program(column).exported(), path)


def _save_export(column: str, path: Path) -> None:
    torch.export.save(_exported_model(column), path)


def _save_trace(column: str, path: Path) -> None:
    torch.jit.save(_traced(column), str(path))


def _save_package(column: str, path: Path) -> None:
    torch._inductor.aoti_compile_and_package(_exported_model(column), package_path=str(path))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[list[Any]]]:
    """The results of all columns in another process, by the kind of file."""

    @functools.cache
    def results(kind: str) -> list[list[Any]]:
        folder = tmp_path_factory.mktemp("files")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own, of saving: filters of tests are not in fixtures
            if kind == "spawn":
                return _in_spawned_process(folder)
            write = {
                "aoti.pt2": _save_package,
                "exported.pt2": _save_exported,
                "pt2": _save_export,
                "ts": _save_trace,
            }[kind]
            return _elsewhere(folder, kind, write)

    return results


_HERE: dict[str, _Results] = {
    "`torch.jit.script` of a module that calls a traced program": _of(_scripted),
    "`torch.fx.symbolic_trace` of a model with the engines": _of(_symbolic),
    "`torch.compile(fullgraph=True)`": _of(_compiled),
    "`copy.deepcopy`": _of(lambda column: copy.deepcopy(_program(column))),
    "`torch.save` of the `state_dict`, and `load_state_dict`": _of(_with_loaded_state),
}
_ELSEWHERE = {
    "`Program.exported()`, `torch.export.save`, `load` in a new process": "exported.pt2",
    "`torch.export.export` of a model with the program in it, `save`, `load` in a new process": "pt2",
    "`torch.jit.trace`, `save`, `load` in a new process": "ts",
    "a file in a process of `multiprocessing` with the method spawn": "spawn",
    "AOTInductor: `aoti_compile_and_package`, loaded in a new process": "aoti.pt2",
}


def _table() -> tuple[list[str], dict[str, list[str]]]:
    """The columns and rows of the table in docs/files.md."""
    page = (_ROOT / "docs" / "files.md").read_text()
    section = page[page.index("\n## What goes through what\n") + 1 :].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \|$", section, re.M)
    head, _, *body = [row.split(" | ") for row in rows]
    return head[1:], {name: cells for name, *cells in body}


def test_the_table_has_a_row_for_each_route() -> None:
    columns, rows = _table()
    assert columns == list(_COLUMNS)
    assert sorted(rows) == sorted([*_HERE, *_ELSEWHERE])


def _cells() -> Iterator[Any]:
    columns, rows = _table()
    for route, cells in rows.items():
        marks: list[Any] = []
        if route.startswith("AOTInductor"):
            reason = "needs a C++ compiler"
            marks = [pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason=reason)]
        for column, cell in zip(columns, cells, strict=True):
            yield pytest.param(route, column, cell, marks=marks, id=f"{route} - {column}".replace("`", ""))


@pytest.fixture(autouse=True)
def _sizes_in_compiled_graphs() -> Iterator[None]:
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        yield


@pytest.mark.parametrize(("route", "column", "cell"), list(_cells()))
def test_a_cell(route: str, column: str, cell: str, elsewhere: Callable[[str], list[list[Any]]]) -> None:
    assert cell == "yes"
    program = _program(column)
    if route in _HERE:
        found = _HERE[route](column)
    else:
        found = elsewhere(_ELSEWHERE[route])[list(_COLUMNS).index(column)]
    for result, x in zip(found, _inputs(), strict=True):
        wanted = program(x) if "fx" not in route else _Model(program)(x)
        torch.testing.assert_close(tuple(result) if isinstance(wanted, tuple) else result, wanted)
