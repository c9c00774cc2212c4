from typing import Any

from typing_extensions import Self, disjoint_base

@disjoint_base
class ArgumentKinds:
    def __new__(cls, arguments: tuple[Any, ...]) -> Self: ...
    @property
    def known(self) -> bool: ...
    def fit(self, arguments: tuple[Any, ...]) -> bool: ...
