"""Counts that callers give to controls are checked at entry, before anything is allocated or changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import isolated
from tests.reference import plans
from trt_rt import TRTModule
from trt_rt.runtime import enable_cudagraphs, enable_pre_allocated_outputs

NO_COUNTS = [
    pytest.param(1.5, TypeError, id="fraction"),
    pytest.param("2", TypeError, id="string"),
    pytest.param(None, TypeError, id="none"),
    pytest.param(0, ValueError, id="zero"),
    pytest.param(2**31, ValueError, id="2**31"),
    pytest.param(2**61, ValueError, id="2**61"),
    pytest.param(2**63, ValueError, id="2**63"),
]


@pytest.mark.parametrize(("count", "error"), NO_COUNTS)
def test_a_refused_number_of_buffers_changes_nothing(count: Any, error: type[Exception]) -> None:
    module = TRTModule(plans.affine())
    before = module.executors.modes
    with pytest.raises(error, match="buffers"):
        enable_pre_allocated_outputs(module, buffers=count).__enter__()
    assert module.executors.modes == before


def test_a_refused_number_of_graphs(tmp_path: Path) -> None:
    """In a process of its own: a size that overflows corrupts the heap."""
    counts = [parameter.values for parameter in NO_COUNTS]
    result = isolated.run(
        f"""
        import itertools
        from trt_rt.runtime import enable_cudagraphs
        module = TRTModule(plan)
        before = module.executors.modes
        counts = {[(count, error.__name__) for count, error in counts]!r}
        for (count, error), whole in itertools.product(counts, (False, True)):
            try:
                with enable_cudagraphs(module, whole_graph=whole, max_graphs=count) as called:
                    called(torch.ones(1, 7))
            except Exception as refusal:
                assert type(refusal).__name__ == error, repr(refusal)
                assert str(refusal).startswith(f"max_graphs={{count!r}}: "), refusal
            else:
                print("not refused:", count, flush=True)
            assert module.executors.modes == before
        """,
        plans.affine(),
        tmp_path,
    )
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "")


def test_any_kind_of_integer_is_a_count() -> None:
    module = TRTModule(plans.affine())
    x = torch.ones(1, 7)
    with enable_cudagraphs(module, max_graphs=np.int64(1)) as called:
        torch.testing.assert_close(called(x), torch.full((1, 7), 3.0))
