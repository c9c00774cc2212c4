"""A program of which files by other versions of PyTorch are kept in ``files/``, for this version to load.

``python -m tests.archive.of_other_torch``, from the root of the repository, adds the file of the PyTorch that
runs it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

import trt_rt

__all__ = ["FILES", "Model", "example", "write"]

FILES = Path(__file__).parent / "files"


class Model(torch.nn.Module):
    """Two engines and PyTorch between them, state, sizes that vary and that depend on data, and a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("weight", torch.linspace(-1, 1, 32).reshape(8, 4))

    def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor], *, scale: float = 2.0) -> Any:
        self.calls.add_(1)
        hidden = torch.relu(x @ self.weight.t() * scale)
        spectrum = torch.fft.fft(hidden).real
        scores = torch.softmax(spectrum, -1) @ self.weight + more["bias"]
        return {"scores": scores, "rows": [torch.nonzero(x.sum(1) > 0), scores.reshape(x.shape[0] * 2, 2)]}


def example(batch: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return arguments, which are the same with every PyTorch."""
    x = torch.sin(torch.arange(batch * 4, dtype=torch.float32)).reshape(batch, 4)
    return x, {"bias": torch.linspace(0, 1, 4)}


def write(path: Path) -> None:
    """Compile the program and save it."""
    batch = torch.export.Dim("batch", min=2, max=64)
    program = trt_rt.compile(
        Model().eval(),
        inputs=list(example(4)),
        kwarg_inputs={"scale": 2.0},
        dynamic_shapes={"x": {0: batch}, "more": {"bias": None}, "scale": None},
        backend="reference",
        cache_dir=None,
        min_block_size=1,
    )
    trt_rt.save(program, path)


if __name__ == "__main__":
    version = re.match(r"(\d+)\.(\d+)", torch.__version__)
    assert version is not None
    write(FILES / f"torch_{version[1]}_{version[2]}.pt2")
