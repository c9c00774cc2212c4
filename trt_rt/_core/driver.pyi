from typing_extensions import Self, disjoint_base

def device_count() -> tuple[int, str]: ...

@disjoint_base
class StreamOrder:
    def __new__(cls, device_index: int) -> Self: ...
