"""What every test shares: the option ``--behaviour``, and a skip of GPU tests where there is no GPU."""

from __future__ import annotations

import pytest
import torch


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
