from typing import Any

from typing_extensions import Self, disjoint_base

from trt_rt._core.executor import Executor
from trt_rt._core.executor_pool import ExecutorPool

@disjoint_base
class ModuleCallBase:
    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def _connect(self, pool: ExecutorPool, is_direct: bool, hooks: tuple[dict[Any, Any], ...]) -> None: ...
    @property
    def executor(self) -> Executor: ...
