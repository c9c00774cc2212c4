"""Programs with sparse tensors cannot be captured as one graph, and are refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.reference import plans
from trt_rt import TRTError, TRTModule
from trt_rt.runtime import enable_cudagraphs


class Sparse(torch.nn.Module):
    """Returns an engine's output as a sparse tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = TRTModule(plans.affine())

    def forward(self, x: torch.Tensor) -> Any:
        y = self.engine(x)
        return y, {"sparse": y.to_sparse()}


def test_an_output() -> None:
    program = Sparse()
    x = torch.randn(3, 7)
    with enable_cudagraphs(program, whole_graph=True) as called:
        for _ in range(2):
            with pytest.raises(TRTError, match=r"sparse.*to_dense"):
                called(x)
    torch.testing.assert_close(program(x)[1]["sparse"].to_dense(), torch.relu(x) * 2 + 1)


class Sum(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.engine = TRTModule(plans.affine())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.engine(x.to_dense()) + 1


def test_an_argument() -> None:
    x = torch.randn(3, 7).to_sparse()
    with enable_cudagraphs(Sum(), whole_graph=True) as called:
        for _ in range(2):
            with pytest.raises(TRTError, match=r"dense.*sparse"):
                called(x)
