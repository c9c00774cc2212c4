"""Ports for servers of tests."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

__all__ = ["free_ports"]

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 20_000  # below it are the ports that programs have by default


def free_ports(number: int) -> list[int]:
    """Return ports of this machine that nobody uses.

    Nobody else gets them before the server that they are for. Linux gives them to no connection and to no
    server that asks for any port, because they are outside of its range where that leaves others. Other test
    processes see that they are taken until this process ends.
    """
    least, most = map(int, _RANGE.read_text().split())
    found: list[int] = []
    for port in sorted(range(_FIRST, 1 << 16), key=lambda each: least <= each <= most):
        if len(found) == number:
            break
        if _take(port):
            found.append(port)
    assert len(found) == number, f"there are no {number} free ports"
    return found


def _take(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as name, socket.socket() as anywhere:
        # A name of Linux's abstract namespace belongs to one socket. This one is open until the process ends.
        name.bind(f"\0port {port} of trt_rt's tests")
        anywhere.bind(("", port))
        name.detach()
        return True
    return False
