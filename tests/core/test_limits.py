"""Limits of the core are never sizes of an allocation, so that one of any size corrupts no memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import isolated
from tests.reference import plans

pytestmark = pytest.mark.behaviour(40)


@pytest.mark.parametrize("limit", [2**60, 2**61, 2**63 - 1])
def test_any_number_of_graphs_and_contexts_may_be_kept(limit: int, tmp_path: Path) -> None:
    code = f"""
    from trt_rt._core.call import ExecutorPool
    module = TRTModule(plan)
    executor = module.executor
    executor.configure(buffers=0, max_graphs={limit}, allocate_all=False, profile=-1, context_settings=None)
    pool = ExecutorPool(lambda: executor, torch.device("cpu"), {limit})
    for size in (3, 4, 5, 3, 4, 5):
        for turn in range(8):
            x = torch.randn(size, 7)
            torch.testing.assert_close(pool.current()(x), torch.relu(x) * 2 + 1)
    assert executor.stats()["captures"] > 8
    """
    done = isolated.run(code, plans.affine(), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("counts", [{"buffers": -1, "max_graphs": 0}, {"buffers": 0, "max_graphs": -1}])
def test_negative_counts_are_refused(counts: dict[str, int], tmp_path: Path) -> None:
    code = f"""
    executor = TRTModule(plan).executor
    try:
        executor.configure(**{counts}, allocate_all=False, profile=-1, context_settings=None)
    except ValueError as error:
        assert "cannot be negative" in str(error)
    else:
        raise AssertionError("a negative count was taken")
    x = torch.randn(3, 7)
    torch.testing.assert_close(executor(x), torch.relu(x) * 2 + 1)
    """
    done = isolated.run(code, plans.affine(), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
