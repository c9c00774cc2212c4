"""A replica whose operator `sinh` can be made to wait or to fail, by files in the folder BREAKABLE_FOLDER.

It waits while there is a file `hold`. It fails while there is a file `fail`, or one named by the process id.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from trt_rt.integrations.ray_serve.replica import Replica

__all__ = ["BreakableReplica"]


class BreakableReplica(Replica):
    """Replaces PyTorch's kernel on the CPU in its own process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        folder = Path(os.environ["BREAKABLE_FOLDER"])

        def sinh(x: torch.Tensor) -> torch.Tensor:
            while (folder / "hold").exists():
                time.sleep(0.005)
            if (folder / "fail").exists() or (folder / str(os.getpid())).exists():
                raise RuntimeError("sinh is broken")
            return (x.exp() - x.neg().exp()) / 2

        self._library = torch.library.Library("aten", "IMPL")
        self._library.impl("sinh", sinh, "CPU")
        super().__init__(*args, **kwargs)
