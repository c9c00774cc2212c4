"""What every test shares: plan factories, the option ``--behaviour``, and a skip of GPU tests without a GPU.

A test with the fixture `make` runs once for each plan factory; a test marked gpu for those that need a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.factories.case import Case
from tests.factories.selection import Factory, factories


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
