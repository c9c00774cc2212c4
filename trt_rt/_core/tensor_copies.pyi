from typing_extensions import Self, disjoint_base

@disjoint_base
class TensorCopies:
    def __new__(cls, capacity: int, is_outward: bool) -> Self: ...
