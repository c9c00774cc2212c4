from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from typing_extensions import disjoint_base

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Value = TypeVar("_Value")

def callback(
    *, refusal: Any = None, keeps_error: bool = False
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]: ...
def finalizer(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]: ...

@disjoint_base
class Callback:
    @property
    def func(self) -> Callable[..., Any]: ...
    def __init__(self, function: Callable[..., Any], refusal: Any, keeps_error: bool) -> None: ...
    def __call__(self, instance: Any, /, *args: Any) -> Any: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Callable[..., Any]: ...

@disjoint_base
class HandBack:
    def __init__(self, values: list[_Value], value: _Value) -> None: ...
