"""The operator ``trt_rt::execute_engine``, which stands for an engine in graphs that PyTorch saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trt_rt.operator.definition import OPERATOR, register_kernel

if TYPE_CHECKING:
    from trt_rt.operator.meta import EngineMeta, TensorMeta
else:

    def __getattr__(name: str) -> Any:
        """Import the descriptions when they are first used: only graphs need them."""
        if name not in ("EngineMeta", "TensorMeta"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from trt_rt.operator import meta

        return getattr(meta, name)


__all__ = ["OPERATOR", "EngineMeta", "TensorMeta", "register_kernel"]
