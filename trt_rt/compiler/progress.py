"""TensorRT's progress reports: progress bars, and the cancellation of a build."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, RLock
from typing import Any, Protocol

from trt_rt.errors import CompileError

__all__ = ["NO_DISPLAY", "Display", "make_monitor", "progress_display"]

_log = logging.getLogger("trt_rt.compiler")


class Display(Protocol):
    """A display of progress. TensorRT's threads call it, one at a time."""

    def start(self, phase: str, depth: int, steps: int) -> None:
        """Show a new phase inside `depth` others."""

    def label(self, phase: str, text: str) -> None:
        """Show another text for a phase."""

    def advance(self, phase: str, steps_done: int) -> None:
        """Show how many steps of a phase are done."""

    def finish(self, phase: str) -> None:
        """End a phase, also if not all of its steps were reported."""


class _NoDisplay:
    def start(self, phase: str, depth: int, steps: int) -> None:
        pass

    def label(self, phase: str, text: str) -> None:
        pass

    def advance(self, phase: str, steps_done: int) -> None:
        pass

    def finish(self, phase: str) -> None:
        pass


NO_DISPLAY: Display = _NoDisplay()
"""Shows nothing."""


class _Bars:
    """One progress bar on stderr for each active phase, indented by its depth."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def start(self, phase: str, depth: int, steps: int) -> None:
        self._tasks[phase] = self._progress.add_task("  " * depth + phase, total=steps)

    def label(self, phase: str, text: str) -> None:
        self._progress.update(self._tasks[phase], description=text)

    def advance(self, phase: str, steps_done: int) -> None:
        self._progress.update(self._tasks[phase], completed=steps_done)

    def finish(self, phase: str) -> None:
        self._progress.remove_task(self._tasks.pop(phase))


@contextmanager
def progress_display(wanted: bool | None) -> Iterator[Display]:
    """Yield the display of one build.

    Parameters
    ----------
    wanted : bool or None
        False shows nothing. None shows bars if stderr is a terminal and the package rich is installed. True
        shows bars also if stderr is not a terminal, as in a notebook.

    Raises
    ------
    CompileError
        `wanted` is True and the package rich is missing.
    """
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        yield NO_DISPLAY
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError as error:
        if wanted:
            raise CompileError(
                f"progress=True needs the package rich ({error}); install it with: pip install rich"
            ) from error
        yield NO_DISPLAY
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True, force_terminal=True if wanted else None)
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bars(progress)


def make_monitor(api: Any, display: Display, cancelled: Event) -> Any | None:
    """Make an ``IProgressMonitor``, or None if this TensorRT has none.

    Parameters
    ----------
    api : module
        TensorRT's Python module.
    display : Display
        Receives each phase.
    cancelled : threading.Event
        Set it to end the build at the next step.

    Returns
    -------
    IProgressMonitor or None
        The monitor. It must outlive every TensorRT object that uses it.
    """
    if not hasattr(api, "IProgressMonitor"):
        return None
    lock = RLock()
    depths: dict[str, int] = {}

    def show(function: Callable[..., None], *arguments: Any) -> None:
        # An exception must not travel through TensorRT's C++, and a failed bar must not end a build.
        try:
            function(*arguments)
        except Exception:
            _log.exception("the progress of the build cannot be shown")

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            # pybind11 requires an explicit call of the base class's __init__.
            api.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with lock:
                depths[phase_name] = depths.get(parent_phase, -1) + 1 if parent_phase else 0
                show(display.start, phase_name, depths[phase_name], num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with lock:
                show(display.advance, phase_name, step + 1)
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                depths.pop(phase_name, None)
                show(display.finish, phase_name)

    return Monitor()
