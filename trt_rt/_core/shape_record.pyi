from typing import Any

from typing_extensions import Self, disjoint_base

@disjoint_base
class OutputBuffers:
    def __new__(cls, buffers: tuple[Any, ...]) -> Self: ...

@disjoint_base
class ShapeRecord:
    def __new__(cls, key_length: int, input_count: int, output_count: int) -> Self: ...

@disjoint_base
class ShapeCache:
    def __new__(cls, capacity: int) -> Self: ...
    @property
    def capacity(self) -> int: ...
