"""`import trt_rt` is cheap, and gives every public name when it is used."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

import trt_rt
from tests import isolated

# A share of the CPU time that `import torch` takes in the same process: machines differ, and CPU time, too,
# doubles while other programs use the same core.
_LIMIT = 0.1

# Imports PyTorch once. Each fork then imports trt_rt anew, as a process does that has just imported PyTorch.
_MEASURE = """
import os, sys, time

start = time.process_time()
import torch
pytorch = time.process_time() - start

# The first fork compiles the modules, which is what pip does when it installs them.
sys.pycache_prefix, sys.dont_write_bytecode = sys.argv[1], False
before = set(sys.modules)
for attempt in range(10):
    child = os.fork()
    if child == 0:
        start = time.process_time()
        import trt_rt
        share = (time.process_time() - start) / pytorch
        torch.ops.trt_rt.execute_engine.default  # programs that PyTorch has saved need it
        print("share", share, flush=True)
        print("modules", *sorted(set(sys.modules) - before), flush=True)
        os._exit(0 if share < LIMIT else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    if attempt and status == 0:
        break
""".replace("LIMIT", str(_LIMIT))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The words of each line that the forks print."""
    done = isolated.run_python(_MEASURE, tmp_path_factory.mktemp("bytecode"))
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_it_takes_little_more_than_pytorch(measured: list[list[str]]) -> None:
    shares = [float(line[1]) for line in measured if line[0] == "share"]
    assert len(shares) >= 2
    assert min(shares) < _LIMIT, f"of the CPU time of `import torch`: {shares}"


def test_a_program_that_runs_engines_imports_nothing_else(measured: list[list[str]]) -> None:
    modules = next(line[1:] for line in measured if line[0] == "modules")
    assert "trt_rt._core.call" in modules
    roots = {module.partition(".")[0] for module in modules}
    foreign = {
        root for root in roots - sys.stdlib_module_names if not root.startswith(("trt_rt", "_cython_"))
    }
    assert not foreign, "PyTorch's other parts and other packages are imported when they are first used"
    layers = {module.split(".")[1] for module in modules if module.startswith("trt_rt.")}
    assert not layers & {"capture", "cli", "compiled", "compiler", "demo", "program", "reference", "runtime"}


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(trt_rt.__file__).read_text())
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    for_checkers = {alias.name: node.module for node in imports for alias in node.names}
    assert for_checkers.keys() <= set(trt_rt.__all__)
    for name, module in for_checkers.items():
        assert module is not None
        assert getattr(trt_rt, name) is getattr(importlib.import_module(module), name)
    at_import = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert for_checkers.keys() | at_import >= set(trt_rt.__all__) - {"__version__"}


def test_every_public_name_is_there() -> None:
    everything: dict[str, object] = {}
    exec("from trt_rt import *", everything)
    assert set(trt_rt.__all__) <= set(everything)
    assert set(trt_rt.__all__) <= set(dir(trt_rt))
    for name in trt_rt.__all__:
        assert getattr(trt_rt, name) is everything[name]


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'TRTModul'"):
        trt_rt.TRTModul  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'TRTModul'"):
        from trt_rt import TRTModul  # type: ignore[attr-defined]  # noqa: F401


def test_subpackages_need_no_import_of_their_own() -> None:
    code = "import trt_rt; print(trt_rt.runtime.enable_cudagraphs.__module__, trt_rt.reference.__version__)"
    assert isolated.printed_by(code).split() == ["trt_rt.runtime.cudagraphs", trt_rt.reference.__version__]
