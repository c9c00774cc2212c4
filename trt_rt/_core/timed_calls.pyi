from array import array
from collections.abc import Callable
from typing import Any

def time_calls(
    call: Callable[..., object],
    calls: int,
    arguments: tuple[Any, ...] = (),
    keywords: dict[str, Any] | None = None,
    stream: int | None = None,
) -> tuple[array[int], array[int]]: ...
def clock_cost(readings: int = 1000) -> int: ...
