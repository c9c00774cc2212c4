"""Limits of any size are honoured or refused, and never corrupt memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import isolated
from tests.reference import plans


@pytest.mark.parametrize("limit", [2**60, 2**61, 2**61 + 1, 2**62, 2**63 - 1])
def test_any_number_of_graphs_may_be_kept(limit: int, tmp_path: Path) -> None:
    code = f"""
    from trt_rt.runtime import enable_cudagraphs
    module = TRTModule(plan)
    with enable_cudagraphs(module, max_graphs={limit}):
        for size in (3, 4, 5, 3, 4, 5):
            for turn in range(8):
                x = torch.randn(size, 7)
                torch.testing.assert_close(module(x), torch.relu(x) * 2 + 1)
    assert module.stats()["captures"] > 8
    """
    done = isolated.run(code, plans.affine(), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("limit", [2**60, 2**61, 2**61 + 1, 2**62, 2**63 - 1])
def test_any_number_of_contexts_may_be_kept(limit: int, tmp_path: Path) -> None:
    code = f"""
    import threading
    module = TRTModule(plan, max_contexts={limit})
    barrier = threading.Barrier(4)
    right = []
    def call():
        barrier.wait()
        x = torch.randn(3, 7)
        right.append(torch.equal(module(x), torch.relu(x) * 2 + 1))
        barrier.wait()
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4, right
    assert module.stats()["contexts"] == 4
    """
    done = isolated.run(code, plans.affine(), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
