from typing import Any

from typing_extensions import disjoint_base

from trt_rt._core.bound_context import BoundContext

@disjoint_base
class InputBinding(BoundContext):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
