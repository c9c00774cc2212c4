"""Calls read the state of tensors where PyTorch keeps it. Where they cannot, they ask its Python methods."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import trt_rt
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt._core.call import tensor_state_is_known

ROOT = Path(trt_rt.__file__).parents[1]

# Tests of what calls ask about tensors: memory, sign, gradients, versions.
TESTS = [
    "tests/behaviours/test_autograd.py",
    "tests/behaviours/test_negative_views.py",
    "tests/capture/test_parameter_changes.py",
]

# What a future PyTorch could do: without a function, or with the state elsewhere.
WITHOUT_A_FUNCTION = "del torch._C._dispatch_keys"
STATE_ELSEWHERE = "torch.Tensor.storage_offset = lambda self: -1"


def test_this_pytorch_keeps_the_state_where_calls_read_it() -> None:
    assert tensor_state_is_known()


@pytest.mark.parametrize("change", [WITHOUT_A_FUNCTION, STATE_ELSEWHERE])
def test_another_pytorch_is_asked_in_python(change: str) -> None:
    """Import trt_rt in a changed PyTorch, undo the change, and run the tests of what calls ask."""
    code = f"""
import sys, torch
kept = torch._C._dispatch_keys, torch.Tensor.storage_offset
{change}
from trt_rt._core.call import tensor_state_is_known
assert not tensor_state_is_known()
torch._C._dispatch_keys, torch.Tensor.storage_offset = kept
import pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", "not gpu", *sys.argv[1:]]))
"""
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", code, *TESTS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
