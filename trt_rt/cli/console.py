"""The terminal, through rich."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console

__all__ = ["make_console"]


def make_console() -> Console:
    """Return a console on standard output."""
    return _Console()


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Raise the BrokenPipeError that is being handled; rich would end the process."""
        raise
