"""``Runtime``: makes engines of plans."""

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
        Receives the messages of the runtime, and of all that comes from it.

    Raises
    ------
    TypeError
        `logger` is none.
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
        """Whether plans may bring code that runs on the host; a reference plan cannot have any."""
        return self._engine_host_code_allowed

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, allowed: bool) -> None:
        self._engine_host_code_allowed = allowed

    @plain
    def deserialize_cuda_engine(
        self, serialized_engine: bytes | bytearray | memoryview
    ) -> ICudaEngine | None:
        """Make an engine of a plan that :func:`trt_rt.reference.build` made.

        A plan for CUDA is loaded on the current CUDA device.

        Parameters
        ----------
        serialized_engine : buffer
            The plan; copied, so that it can be dropped afterwards.

        Returns
        -------
        ICudaEngine or None
            None, and an error logged, if the plan is of another kind or version, truncated, corrupted, or
            cannot run on this machine.

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
