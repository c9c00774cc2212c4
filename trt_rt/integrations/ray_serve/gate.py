"""The way into a front, which closes before a server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from trt_rt.integrations.inference_protocol import RequestError

__all__ = ["Gate"]


class Gate:
    """Counts the requests that are under way, and refuses new ones once it is closed.

    One event loop uses a gate.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._is_closed = False
        self._empty = asyncio.Event()

    def check_open(self) -> None:
        """Check that requests are taken.

        Raises
        ------
        RequestError
            The gate is closed.
        """
        if self._is_closed:
            raise RequestError(503, "the server is stopping.")

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count the request that is answered within.

        Raises
        ------
        RequestError
            The gate is closed.
        """
        self.check_open()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if self._is_closed and not self._inside:
                self._empty.set()

    async def close(self) -> None:
        """Refuse new requests, and return when no request is under way."""
        self._is_closed = True
        if self._inside:
            await self._empty.wait()
