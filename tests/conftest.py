"""Fixtures and options that tests of several folders use.

A test with the fixture `make` runs once for each plan factory; a test marked gpu for those that need a GPU.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator

import pytest
import torch

import tests.properties.examples  # noqa: F401  # Hypothesis's settings, for tests that name none too
from tests.factories.case import Case
from tests.factories.selection import Factory, factories
from tests.reference import plans
from trt_rt import TRTModule
from trt_rt.backend import Backend, load
from trt_rt.errors import BackendError

if "PYTEST_XDIST_WORKER" in os.environ:
    # One core for each process of `pytest -n`, and for each process that its tests start. With more threads
    # than cores, each operator of PyTorch waits until all its threads have had a turn.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--behaviour",
        type=int,
        action="append",
        metavar="NUMBER",
        help="run only the tests of this behaviour (CONTRIBUTING.md lists them); may be given several times",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = set(config.getoption("behaviour") or ())
    if not wanted:
        return
    selected: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        shown = {number for marker in item.iter_markers("behaviour") for number in marker.args}
        (selected if shown & wanted else deselected).append(item)
    config.hook.pytest_deselected(items=deselected)
    items[:] = selected


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # Before any fixture is made: those of GPU tests need the GPU too.
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU: torch.cuda.is_available() is False here")


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures compile what no earlier run has compiled, and leave nothing in the user's folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRT_RT_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _no_cache_of_another_test(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each test compiles, whichever tests run before it. The folder is made when a program is kept in it."""
    cache = tmp_path_factory.getbasetemp() / f"cache-of-test-{next(_numbers)}"
    monkeypatch.setenv("TRT_RT_CACHE_DIR", str(cache))


@pytest.fixture(autouse=True)
def _same_terminal_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed depends on no terminal, and no line breaks, however long the paths of tests are."""
    for name in ("FORCE_COLOR", "NO_COLOR", "PYTHON_COLORS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture(autouse=True)
def pytorch_stays_as_it_is() -> Iterator[None]:
    """No test, and no interrupt within one, leaves ``__torch_function__`` switched off for its thread."""
    yield
    found = torch._C._get_torch_function_state()
    torch._C._set_torch_function_state(torch._C._TorchFunctionState.ENABLED)
    assert found == torch._C._TorchFunctionState.ENABLED, "this test left __torch_function__ switched off"


_FACTORIES = factories()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "factory" not in metafunc.fixturenames:
        return
    only_gpu = metafunc.definition.get_closest_marker("gpu") is not None
    parameters = [
        pytest.param(factory, id=factory.name, marks=[pytest.mark.gpu] if factory.needs_gpu else [])
        for factory in _FACTORIES
        if factory.needs_gpu or not only_gpu
    ]
    metafunc.parametrize("factory", parameters, scope="session")


@pytest.fixture
def make(factory: Factory) -> Callable[[str], Case]:
    """``make(kind)`` gives a `Case`; skips if the factory cannot make that kind."""

    def make_case(kind: str) -> Case:
        made = factory.make(kind)
        if made is None:
            pytest.skip(f"the plan factory {factory.path} makes no engine of kind {kind!r}")
        return Case(factory, kind, made)

    return make_case


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def module() -> TRTModule:
    """One input x[b, 7], one output; `tests.reference.plans.eager_affine` is what it must return."""
    return TRTModule(plans.affine())


@pytest.fixture
def x() -> torch.Tensor:
    """An input of `module`."""
    return torch.randn(3, 7)


@pytest.fixture
def two() -> TRTModule:
    """Two inputs a, b [b, 3], two outputs a + b, b + 1."""
    return TRTModule(plans.two())


@pytest.fixture(scope="session")
def rtx() -> Backend:
    """TensorRT-RTX, whose builder needs no GPU."""
    try:
        return load("tensorrt_rtx")
    except BackendError as error:
        pytest.skip(f"the TensorRT-RTX wheels are not installed: {error}")


@pytest.fixture
def threads_change_often() -> Iterator[None]:
    """Switches threads every 10 microseconds, so that more of their interleavings are tried."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
