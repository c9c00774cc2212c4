"""Interfaces that a user implements and an execution context calls."""

from __future__ import annotations

__all__ = ["IOutputAllocator", "IProfiler", "Profiler"]


class IOutputAllocator:
    """Base class of output allocators.

    A subclass calls ``IOutputAllocator.__init__(self)`` and defines

    - ``reallocate_output_async(tensor_name, memory, size, alignment, stream) -> int``, or the older
      ``reallocate_output(tensor_name, memory, size, alignment) -> int``: the address of at least `size`
      **bytes**, aligned to `alignment`, for the output `tensor_name`; 0 or None if there is none. `memory` is
      the present address of the tensor (0 if it has none), `stream` the handle of the stream that will write
      it.
    - ``notify_shape(tensor_name, shape)``: receives the output's dimensions once they are known.

    As in TensorRT, the base class defines none of these methods.
    """

    def __init__(self) -> None:
        pass


class IProfiler:
    """Base class of profilers: derive from it and define ``report_layer_time(layer_name, ms)``."""

    def __init__(self) -> None:
        pass

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Receive the time that one layer took in one run.

        Parameters
        ----------
        layer_name : str
            The layer's name.
        ms : float
            Milliseconds.

        Raises
        ------
        NotImplementedError
            If the subclass does not define it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define report_layer_time(self, layer_name, ms)"
        )


class Profiler(IProfiler):
    """A profiler that prints every layer's time to standard output, as TensorRT's does."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Print the time that one layer took."""
        print(f"{layer_name}: {ms}ms")  # noqa: T201
