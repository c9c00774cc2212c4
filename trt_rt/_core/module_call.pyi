from typing import Any

from typing_extensions import disjoint_base

from trt_rt._core.executor import Executor

@disjoint_base
class ModuleCallBase:
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def _connect(self, executor: Executor, is_direct: bool, hooks: tuple[dict[Any, Any], ...]) -> None: ...
    @property
    def executor(self) -> Executor: ...
