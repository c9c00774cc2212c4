"""How much memory of its own a process needs for something."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["Peak"]


def _anonymous() -> float:
    """Megabytes of the process that are in no file."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


class Peak(threading.Thread):
    """Watches the memory of the process while its block runs.

    Attributes
    ----------
    growth : float
        After the block: by how many megabytes the process was larger at most than before.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._before = self._most = _anonymous()
        self._over = threading.Event()
        self.growth = 0.0

    def run(self) -> None:
        while not self._over.wait(0.002):
            self._most = max(self._most, _anonymous())

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self.join()
        self.growth = max(self._most, _anonymous()) - self._before
