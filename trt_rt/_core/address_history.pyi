from typing_extensions import Self, disjoint_base

@disjoint_base
class AddressHistory:
    def __new__(cls, count: int) -> Self: ...
