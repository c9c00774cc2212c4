"""One progress bar for all steps of a compilation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trt_rt.compiler.progress import Display, progress_display

__all__ = ["Steps", "shown_steps"]


class Steps:
    """Names of steps, each shown until the next begins."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._current: str | None = None

    def next(self, name: str) -> None:
        """Begin a step."""
        self.finish()
        self._current = f"compile: {name}"
        self._display.start(self._current, 0, 1)

    def finish(self) -> None:
        """End the current step."""
        if self._current is not None:
            self._display.finish(self._current)
            self._current = None


@contextmanager
def shown_steps(wanted: bool | None) -> Iterator[Steps]:
    """Show steps as `trt_rt.build` shows its progress.

    Raises
    ------
    CompileError
        A bar is wanted (True) and the package rich is missing.
    """
    with progress_display(wanted) as display:
        steps = Steps(display)
        try:
            yield steps
        finally:
            steps.finish()
