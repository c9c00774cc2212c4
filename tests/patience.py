"""How long tests wait for threads and processes that they have started."""

from __future__ import annotations

__all__ = ["SECONDS_UNTIL_DEADLOCK"]

SECONDS_UNTIL_DEADLOCK = 600
"""What a test waits for takes seconds on an idle machine, and a busy one may be many times slower."""
