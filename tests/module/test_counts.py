"""Counts that callers give to a module are checked before anything is allocated or changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import isolated
from tests.reference import plans
from trt_rt import TRTModule

NO_COUNTS = [
    pytest.param(1.5, TypeError, id="fraction"),
    pytest.param("2", TypeError, id="string"),
    pytest.param(None, TypeError, id="none"),
    pytest.param(0, ValueError, id="zero"),
    pytest.param(-1, ValueError, id="negative"),
    pytest.param(2**31, ValueError, id="2**31"),
    pytest.param(2**61, ValueError, id="2**61"),
    pytest.param(2**63, ValueError, id="2**63"),
    pytest.param(2**64 + 1, ValueError, id="2**64 + 1"),
]


@pytest.mark.parametrize(("count", "error"), NO_COUNTS)
def test_a_refused_number_of_buffers_changes_nothing(count: Any, error: type[Exception]) -> None:
    module = TRTModule(plans.affine())
    before = module.executors.modes
    with pytest.raises(error, match="buffers"):
        module.set_pre_allocated_outputs(True, buffers=count)
    assert module.executors.modes == before


def test_a_refused_number_of_contexts(tmp_path: Path) -> None:
    """In a process of its own: a size that overflows corrupts the heap."""
    counts = [parameter.values for parameter in NO_COUNTS]
    result = isolated.run(
        f"""
        for count, error in {[(count, error.__name__) for count, error in counts]!r}:
            try:
                TRTModule(plan, max_contexts=count)
            except Exception as refusal:
                assert type(refusal).__name__ == error, repr(refusal)
                assert str(refusal).startswith(f"max_contexts={{count!r}}: "), refusal
            else:
                print("not refused:", count, flush=True)
        """,
        plans.affine(),
        tmp_path,
    )
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "")


def test_any_kind_of_integer_is_a_count() -> None:
    module = TRTModule(plans.affine(), max_contexts=np.int64(2))
    assert module.max_contexts == 2
    module.set_pre_allocated_outputs(True, buffers=np.int64(2))
    x = torch.ones(1, 7)
    addresses = [module(x).data_ptr() for _ in range(4)]
    assert addresses[:2] == addresses[2:]
    assert len(set(addresses)) == 2
