"""Options of serialization and of execution contexts."""

from __future__ import annotations

from trt_rt.reference.enums import ExecutionContextAllocationStrategy, SerializationFlag

__all__ = ["IRuntimeConfig", "ISerializationConfig"]


class ISerializationConfig:
    """Options of a serialized engine; :meth:`ICudaEngine.create_serialization_config` makes them."""

    def __init__(self) -> None:
        self._flags = 0

    @property
    def flags(self) -> int:
        """The flags that are set, as bits numbered by :class:`SerializationFlag`."""
        return self._flags

    @flags.setter
    def flags(self, bits: int) -> None:
        self._flags = bits

    def set_flag(self, flag: SerializationFlag) -> bool:
        """Set a flag; return True."""
        self._flags |= 1 << int(flag)
        return True

    def clear_flag(self, flag: SerializationFlag) -> bool:
        """Clear a flag; return True."""
        self._flags &= ~(1 << int(flag))
        return True

    def get_flag(self, flag: SerializationFlag) -> bool:
        """Return whether a flag is set."""
        return bool(self._flags >> int(flag) & 1)


class IRuntimeConfig:
    """Options of an execution context; :meth:`ICudaEngine.create_runtime_config` makes them."""

    def __init__(self) -> None:
        self._strategy = ExecutionContextAllocationStrategy.STATIC

    def get_execution_context_allocation_strategy(self) -> ExecutionContextAllocationStrategy:
        """Return who owns the context's scratch memory, and when it is allocated."""
        return self._strategy

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> None:
        """Choose who owns the context's scratch memory, and when it is allocated."""
        self._strategy = strategy
