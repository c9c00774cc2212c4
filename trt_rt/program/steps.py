"""One progress bar for all steps of a compilation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trt_rt.compiler.progress import Display, progress_display

__all__ = ["Steps", "shown_steps"]

_BAR = "compile"
_LENGTH = 1000
_EXPORTED, _DIVIDED, _BUILT = 250, 400, 950
"""How far the bar is when the model is exported, divided, and built. Building usually takes the longest."""


class Steps:
    """The bar of one compilation: it fills from the export to the last engine, and names what goes on.

    Parameters
    ----------
    display : Display
        Shows the bar.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._done = 0
        self._is_shown = False

    def export(self) -> None:
        """Begin: the model is exported."""
        self._show("export", 0)

    def divide(self) -> None:
        """The model is exported; its graph is divided into parts."""
        self._show("divide", _EXPORTED)

    def prepare(self, fraction: float) -> None:
        """A fraction of the graph's operators is in parts that the backend has accepted."""
        self._show("divide", _EXPORTED + round((_DIVIDED - _EXPORTED) * fraction))

    def build(self, number: int, count: int) -> None:
        """The engine `number` of `count` is built next, counted from 0."""
        self._show(f"engine {number + 1} of {count}", _DIVIDED + (_BUILT - _DIVIDED) * number // count)

    def check(self) -> None:
        """All engines are built; the program is compared with eager PyTorch."""
        self._show("check", _BUILT)

    def end(self) -> None:
        """Take the bar away."""
        if self._is_shown:
            self._display.finish(_BAR)
            self._is_shown = False

    def _show(self, what: str, done: int) -> None:
        if not self._is_shown:
            self._display.start(_BAR, 0, _LENGTH)
            self._is_shown = True
        self._display.label(_BAR, f"{_BAR}: {what}")
        # Parts may be divided anew, and the bar does not go back.
        self._done = max(self._done, done)
        self._display.advance(_BAR, self._done)


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
            steps.end()
