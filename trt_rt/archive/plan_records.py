"""Plans that are written to an archive as soon as engines give them."""

from __future__ import annotations

import torch

from trt_rt.archive.container_writer import ContainerWriter
from trt_rt.archive.payload import WEIGHTS, pieces

__all__ = ["PLAN_HEAD", "PlanRecords"]

PLAN_HEAD = 64
"""The bytes that tell which backend made a plan."""


class PlanRecords:
    """Writes plans one after the other, so that one of them is in memory at a time.

    Parameters
    ----------
    writer : ContainerWriter
        Of the archive. No weights have been written yet.

    Attributes
    ----------
    heads : dict of str to bytes
        The first bytes of each plan, by the plan's name in the program.
    records : dict of str to str
        The name of each plan's file in the folder of weights.
    """

    def __init__(self, writer: ContainerWriter) -> None:
        self._writer = writer
        self.heads: dict[str, bytes] = {}
        self.records: dict[str, str] = {}

    def keep(self, path: str, plan: memoryview) -> torch.Tensor:
        """Write a plan, and return a tensor of its length without values."""
        name = f"{WEIGHTS.prefix}{len(self.records)}"
        self._writer.write(f"{WEIGHTS.folder}{name}", len(plan), pieces(plan))
        self.heads[path] = bytes(plan[:PLAN_HEAD])
        self.records[path] = name
        return torch.empty(len(plan), dtype=torch.uint8, device="meta")
