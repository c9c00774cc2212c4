from typing_extensions import Self, disjoint_base

@disjoint_base
class GraphCache:
    def __new__(cls) -> Self: ...
