"""Where libraries are found, and several TensorRTs in one process; each test has a process of its own."""

from __future__ import annotations

import importlib.util
import os
import textwrap
from pathlib import Path

import pytest

import trt_rt
from tests import isolated
from trt_rt.backend.shared_libraries import find_library

CARRIERS = {"tensorrt_lean": "tensorrt_lean_libs", "tensorrt_rtx": "tensorrt_rtx_libs"}
"""The packages that carry the libraries, next to those with the bindings."""

PREAMBLE = """
import importlib.util, sys
from trt_rt import BackendError
from trt_rt.backend import load
class Hidden:
    '''Makes a package that is installed look as if it were not.'''
    def find_spec(self, name, path=None, target=None):
        if name in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
def hide(*names):
    global hidden
    hidden = names
    sys.meta_path.insert(0, Hidden())
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name, package=None: None if name in hidden else found(name, package)
"""


def run(code: str, **environment: str) -> str:
    return isolated.printed_by(PREAMBLE + textwrap.dedent(code), **environment)


@pytest.fixture(params=CARRIERS)
def backend(request: pytest.FixtureRequest) -> str:
    status = trt_rt.backends()[request.param]
    if not status.installed:
        pytest.skip(status.reason)
    return request.param


def carrier_folder(backend: str) -> Path:
    spec = importlib.util.find_spec(CARRIERS[backend])
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def test_the_library_comes_from_the_package_that_the_extra_installs(backend: str) -> None:
    path = run(f"print(load({backend!r}).library.path)", LD_LIBRARY_PATH="").strip()
    assert Path(path).parent == carrier_folder(backend)


def test_a_missing_library_is_a_sentence(backend: str) -> None:
    code = f"""
    hide({CARRIERS[backend]!r})
    try:
        load({backend!r})
    except BackendError as error:
        print(error)
    """
    message = run(code, LD_LIBRARY_PATH="")
    assert message.startswith(
        f"backend {backend!r}: {backend}_bindings is installed but its library does not"
    )
    for part in ("cannot open shared object file", "TRT_RT_TENSORRT_LIBDIR", "pip install 'trt_rt["):
        assert part in message


def test_the_folder_of_the_variable_is_looked_into_first(backend: str, tmp_path: Path) -> None:
    folder = tmp_path / "libraries"
    folder.mkdir()
    for library in carrier_folder(backend).glob("lib*.so.*"):
        (folder / library.name).symlink_to(library)
    code = f"""
    hide({CARRIERS[backend]!r})
    found = load({backend!r})
    print(found.library.version == tuple(map(int, found.version.split(".")[:3])))
    """
    nowhere = tmp_path / "without"
    nowhere.mkdir()
    folders = os.pathsep.join([str(nowhere), str(folder)])
    assert run(code, LD_LIBRARY_PATH="", TRT_RT_TENSORRT_LIBDIR=folders) == "True\n"


def test_the_systems_loader_finds_a_library(backend: str) -> None:
    code = f"""
    hide({CARRIERS[backend]!r})
    print(load({backend!r}).library.path)
    """
    folder = carrier_folder(backend)
    found = Path(run(code, LD_LIBRARY_PATH=str(folder)).strip())
    assert found.parent == folder


def test_a_variable_that_names_no_folder(tmp_path: Path) -> None:
    code = """
    import trt_rt
    for name, status in trt_rt.backends().items():
        print(name, status.installed, status.reason)
    """
    lines = run(code, TRT_RT_TENSORRT_LIBDIR=str(tmp_path / "no")).splitlines()
    rtx = next(line for line in lines if line.startswith("tensorrt_rtx"))
    if trt_rt.backends()["tensorrt_rtx"].installed:
        assert f"TRT_RT_TENSORRT_LIBDIR names '{tmp_path / 'no'}', which is not a folder" in rtx
    assert next(line for line in lines if line.startswith("reference")).startswith("reference True")


def test_of_several_versions_the_name_that_programs_ask_for_counts(tmp_path: Path) -> None:
    for name in ("libx.so", "libx.so.9", "libx.so.10", "libx.so.10.16.1", "libxy.so.99", "libx.so.txt"):
        (tmp_path / name).write_text(name)
    assert find_library("x", [tmp_path]) == tmp_path / "libx.so.10"
    (tmp_path / "libx.so.10").unlink()
    (tmp_path / "libx.so.9").unlink()
    assert find_library("x", [tmp_path]) == tmp_path / "libx.so.10.16.1"
    assert find_library("z", [tmp_path]) is None


def here() -> list[str]:
    return [status.name for status in trt_rt.backends().values() if status.library]


@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
def test_several_tensorrts_in_one_process(order: int) -> None:
    names = here()[::order]
    if len(names) < 2:
        pytest.skip("needs two TensorRTs that are installed; there are not two")
    code = f"""
    import torch, trt_rt
    for name in {names!r}:
        load(name)
    libraries = set()
    for name in {names!r}:
        backend = load(name)
        assert backend.library.version == tuple(map(int, backend.version.split(".")[:3])), backend.library
        libraries.add(backend.library.path)
    assert len(libraries) == {len(names)}
    if "tensorrt_rtx" in {names!r}:
        plan = trt_rt.build(torch.nn.ReLU(), (torch.zeros(2, 3),), backend="tensorrt_rtx")
        assert trt_rt.backend.identify_plan(plan).backends == ("tensorrt_rtx",)
    print("right")
    """
    assert run(code) == "right\n"


def test_no_library_is_loaded_for_everyone(backend: str) -> None:
    code = f"""
    import ctypes
    load({backend!r})
    print(hasattr(ctypes.CDLL(None), "getInferLibVersion"))
    """
    assert run(code) == "False\n"


def test_a_package_that_is_not_tensorrt(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("")
    code = """
    try:
        load("tensorrt")
    except BackendError as error:
        print(error)
    """
    search = os.pathsep.join([str(tmp_path), isolated.environment()["PYTHONPATH"]])
    message = run(code, PYTHONPATH=search)
    assert "the installed package tensorrt is not TensorRT: it has no Runtime" in message
