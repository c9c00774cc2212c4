from collections.abc import Callable
from typing import Any

class PreparedCall:
    @property
    def function(self) -> Callable[..., Any]: ...
    def __init__(
        self,
        function: Callable[..., Any] | None,
        *argument_lists: tuple[Any, ...],
        keywords: dict[str, Any] | None = None,
    ) -> None: ...
    def __call__(self) -> Any: ...
    def repeat(self, repeats: int) -> None: ...
