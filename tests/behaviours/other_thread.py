"""What an interrupted thread leaves behind is seen by other threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.patience import SECONDS_UNTIL_DEADLOCK

__all__ = ["on_another_thread"]


def on_another_thread(job: Callable[[], object]) -> None:
    """Run a job on another thread; fail if it raises, or does not end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS_UNTIL_DEADLOCK)
    assert not thread.is_alive(), "another thread hangs"
    if errors:
        raise errors[0]
