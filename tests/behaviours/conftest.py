"""Runs every test of behaviour over every plan factory; those marked gpu over the ones that need a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.behaviours.case import Case
from tests.factories.selection import Factory, factories

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


@pytest.fixture(autouse=True)
def _same_random_values() -> None:
    torch.manual_seed(0)
