"""`trt_rt.load_plugins`, with plugin libraries that are compiled here; each test has a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

import trt_rt
from tests import isolated
from trt_rt import BackendError

# TensorRT's documented interface of a plugin library, written out: the order of the virtual functions is that
# of IVersionedInterface and IPluginCreatorV3One.
CREATOR = """
#include <cstdint>
namespace {
struct InterfaceInfo { char const* kind; int32_t major; int32_t minor; };
struct FieldCollection { int32_t count; void const* fields; };
}
char const* name() { return "NAME"; }  // exported under the same symbol by every library
class Creator {
public:
    virtual int32_t getAPILanguage() const noexcept { return 0; }
    virtual InterfaceInfo getInterfaceInfo() const noexcept { return {"PLUGIN CREATOR_V3ONE", 1, 0}; }
    virtual ~Creator() noexcept = default;
    virtual void* createPlugin(char const*, FieldCollection const*, int32_t) noexcept { return nullptr; }
    virtual FieldCollection const* getFieldNames() noexcept { return &fields; }
    virtual char const* getPluginName() const noexcept { return name(); }
    virtual char const* getPluginVersion() const noexcept { return "7"; }
    virtual char const* getPluginNamespace() const noexcept { return "testing"; }
private:
    FieldCollection fields{0, nullptr};
};
extern "C" void* const* getCreators(int32_t& count) {
    static Creator creator;
    static void* const all[] = {&creator};
    count = 1;
    return all;
}
extern "C" void setLoggerFinder(void*) {}
"""
WITHOUT_PLUGINS = """
#include <cstdint>
extern "C" void* const* getCreators(int32_t& count) { count = 0; return nullptr; }
extern "C" void setLoggerFinder(void*) {}
"""
NO_PLUGIN_LIBRARY = 'extern "C" int answer() { return 42; }'
UNRESOLVED = (
    'extern "C" int of_another_library(); extern "C" int getCreators() { return of_another_library(); }'
)

TAKE_PLUGINS = ("tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx")

PREAMBLE = """
import sys
from trt_rt import TRTError, load_plugins
from trt_rt.backend import load
folder, backend = sys.argv[1:]
def refused(library, **options):
    try:
        load_plugins(library, **{"backend": backend} | options)
    except (TRTError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    raise SystemExit(f"{library} was not refused")
def registered(name):
    return {creator.name: creator for creator in load(name).api.get_plugin_registry().all_creators}
"""


@pytest.fixture(params=TAKE_PLUGINS)
def backend(request: pytest.FixtureRequest) -> str:
    status = trt_rt.backends()[request.param]
    if not status.installed:
        pytest.skip(status.reason)
    return request.param


def compile_library(folder: Path, name: str, source: str) -> Path:
    compiler = os.environ.get("CXX", "c++").split()
    assert shutil.which(compiler[0]), "a C++ compiler is a requirement of this project"
    path = folder / f"lib{name}.so"
    file = folder / f"{name}.cpp"
    file.write_text(source)
    subprocess.run([*compiler, "-std=c++17", "-shared", "-fPIC", str(file), "-o", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    compile_library(folder, "one", CREATOR.replace("NAME", "trt_rt_test_one"))
    compile_library(folder, "two", CREATOR.replace("NAME", "trt_rt_test_two"))
    compile_library(folder, "again", CREATOR.replace("NAME", "trt_rt_test_one"))
    compile_library(folder, "none", WITHOUT_PLUGINS)
    compile_library(folder, "other", NO_PLUGIN_LIBRARY)
    compile_library(folder, "unresolved", UNRESOLVED)
    (folder / "libtext.so").write_text("this is a text")
    return folder


def run(code: str, folder: Path, backend: str, **environment: str) -> str:
    return isolated.printed_by(PREAMBLE + textwrap.dedent(code), folder, backend, **environment)


def test_a_library_registers_its_plugins(libraries: Path, backend: str) -> None:
    code = """
    print(load_plugins(f"{folder}/libone.so", backend=backend))
    creator = registered(backend)["trt_rt_test_one"]
    print(creator.plugin_version, creator.plugin_namespace)
    """
    plugin = "Plugin(name='trt_rt_test_one', version='7', namespace='testing')"
    assert run(code, libraries, backend) == f"({plugin},)\n7 testing\n"


def test_loading_it_twice_is_loading_it_once(libraries: Path, backend: str) -> None:
    code = """
    import os, pathlib
    first = load_plugins(f"{folder}/libone.so", backend=backend)
    os.chdir(folder)
    print(first == load_plugins(pathlib.Path("libone.so"), backend=backend) != ())
    """
    assert run(code, libraries, backend) == "True\n"


def test_libraries_do_not_call_each_others_functions(libraries: Path, backend: str) -> None:
    code = """
    print([load_plugins(f"{folder}/lib{name}.so", backend=backend)[0].name for name in ("one", "two")])
    """
    assert run(code, libraries, backend) == "['trt_rt_test_one', 'trt_rt_test_two']\n"


def test_a_name_is_looked_for_in_the_folder_of_the_variable(libraries: Path, backend: str) -> None:
    found = run(
        "print(load_plugins('two', backend=backend)[0].name)",
        libraries,
        backend,
        TRT_RT_TENSORRT_LIBDIR=str(libraries),
    )
    assert found == "trt_rt_test_two\n"


REFUSED = {
    "none": "takes no plugins from",
    "other": "is not a plugin library",
    "text": "does not load",
    # Called by TensorRT, which resolves symbols lazily, this one would end the process.
    "unresolved": "undefined symbol: of_another_library",
}


def test_what_is_no_plugin_library_is_refused(libraries: Path, backend: str) -> None:
    code = f"""
    for name in {list(REFUSED)!r}:
        print(refused(f"{{folder}}/lib{{name}}.so"))
    """
    for (name, says), message in zip(
        REFUSED.items(), run(code, libraries, backend).splitlines(), strict=True
    ):
        assert message.startswith("BackendError: ")
        assert says in message
        assert f"lib{name}.so" in message


def test_a_plugin_of_the_same_name_is_refused(libraries: Path, backend: str) -> None:
    code = """
    load_plugins(f"{folder}/libone.so", backend=backend)
    print(refused(f"{folder}/libagain.so"))
    """
    assert "is already registered" in run(code, libraries, backend)


def test_a_file_or_name_that_is_nowhere(libraries: Path, backend: str) -> None:
    code = """
    print(refused("nowhere/libmissing.so"))
    print(refused("trt_rt_no_such_library"))
    """
    file, name = run(code, libraries, backend).splitlines()
    assert file.startswith("FileNotFoundError: there is no plugin library 'nowhere/libmissing.so'")
    assert "libtrt_rt_no_such_library.so" in name
    assert "TRT_RT_TENSORRT_LIBDIR" in name


def test_plugins_of_one_backend_are_not_those_of_another(libraries: Path) -> None:
    here = [name for name in TAKE_PLUGINS if trt_rt.backends()[name].installed]
    if len(here) < 2:
        pytest.skip("needs two TensorRTs that are installed; there are not two")
    code = f"""
    for name in {here!r}:
        load(name)
    load_plugins(f"{{folder}}/libone.so", backend=backend)
    print([name for name in {here!r} if "trt_rt_test_one" in registered(name)])
    """
    assert run(code, libraries, here[0]) == f"['{here[0]}']\n"


def test_auto_is_the_first_backend_that_is_here(libraries: Path) -> None:
    first = next((name for name in TAKE_PLUGINS if trt_rt.backends()[name].installed), None)
    if first is None:
        pytest.skip("needs a TensorRT that is installed; there is none")
    code = """
    load_plugins(f"{folder}/libone.so")
    print("trt_rt_test_one" in registered(backend))
    """
    assert run(code, libraries, first) == "True\n"


def test_tensorrts_own_plugins(libraries: Path, backend: str) -> None:
    if backend in ("tensorrt", "tensorrt_rtx"):
        assert "Plugin(name='ROIAlign_TRT'" in run(
            "print(load_plugins('nvinfer_plugin', backend=backend))", libraries, backend
        )
    else:
        message = run("print(refused('nvinfer_plugin'))", libraries, backend)
        assert message.startswith(f"BackendError: backend {backend!r} has none of TensorRT's own plugins")


def test_the_reference_backend_has_no_plugins(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="'reference' has no plugins"):
        trt_rt.load_plugins(tmp_path / "any.so", backend="reference")


def test_a_name_that_no_backend_has(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no backend 'tensorflow'"):
        trt_rt.load_plugins(tmp_path / "any.so", backend="tensorflow")
