"""The processes below one, as Linux tells of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["own_bytes", "pids_below"]


def pids_below(ancestor: int, title: str) -> list[int]:
    """Return the ids of the processes below another one whose command lines begin with `title`."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            titles[pid] = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:  # it has ended
            continue
        parents[pid] = int(stat.rpartition(")")[2].split()[1])

    def is_below(pid: int) -> bool:
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    return [pid for pid, found in titles.items() if found.startswith(title) and is_below(pid)]


def own_bytes(pid: int) -> int:
    """Return the memory that is in use by this process alone, without Ray's store, which others share."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.M)
    assert found is not None
    return int(found[1]) * 1024
