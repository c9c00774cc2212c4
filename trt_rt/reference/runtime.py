"""``Runtime``: deserializes plans."""

from __future__ import annotations

from trt_rt.errors import PlanError
from trt_rt.reference.engine import ICudaEngine
from trt_rt.reference.loaded_engine import load
from trt_rt.reference.logger import ILogger, Reporter
from trt_rt.reference.plain_execution import plain

__all__ = ["Runtime"]

_MIB = 1 << 20


class Runtime:
    """Deserializes engines.

    Parameters
    ----------
    logger : ILogger
        Receives the messages of the runtime and of everything that it makes.

    Raises
    ------
    TypeError
        `logger` is no ``ILogger``.
    """

    def __init__(self, logger: ILogger) -> None:
        if not isinstance(logger, ILogger):
            raise TypeError(f"logger must be an ILogger, not {type(logger).__name__}")
        self._reporter = Reporter(logger)
        self._engine_host_code_allowed = False

    @property
    def logger(self) -> ILogger:
        """The logger."""
        return self._reporter.logger

    @property
    def engine_host_code_allowed(self) -> bool:
        """Whether plans may contain code that runs on the host. Reference plans never do."""
        return self._engine_host_code_allowed

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, allowed: bool) -> None:
        self._engine_host_code_allowed = allowed

    @plain
    def deserialize_cuda_engine(
        self, serialized_engine: bytes | bytearray | memoryview
    ) -> ICudaEngine | None:
        """Make an engine from a plan of :func:`trt_rt.reference.build`.

        A plan for CUDA is loaded on the current CUDA device.

        Parameters
        ----------
        serialized_engine : buffer
            The plan. It is copied, so it may be dropped afterwards.

        Returns
        -------
        ICudaEngine or None
            None if the plan is of another kind or version, is truncated, corrupted or malformed, or cannot
            run on this machine; an error is logged then.

        Raises
        ------
        TypeError
            `serialized_engine` is no buffer of contiguous memory.
        """
        plan = memoryview(serialized_engine)
        if not plan.contiguous:
            raise TypeError("serialized_engine must lie in contiguous memory")
        try:
            loaded = load(plan.cast("B"), self._reporter)
            loaded.check()
        except PlanError as error:
            self._reporter.bad_plan("IRuntime::deserializeCudaEngine", str(error))
            return None
        except (MemoryError, RuntimeError) as error:
            # PyTorch's out-of-memory error is a RuntimeError.
            self._reporter.failure("IRuntime::deserializeCudaEngine", f"{type(error).__name__}: {error}")
            return None
        self._reporter.inform(f"Loaded engine size: {len(plan) // _MIB} MiB")
        return ICudaEngine(loaded, self)
