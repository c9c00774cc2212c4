from array import array
from collections.abc import Callable

def time_calls(
    call: Callable[[], object], calls: int, stream: int | None = None
) -> tuple[array[int], array[int]]: ...
