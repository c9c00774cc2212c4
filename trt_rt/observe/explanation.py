"""What a call did, and why: of a module, with its engines and what is around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from trt_rt.observe.engine_call import EngineCall

__all__ = ["Explanation", "ProgramCall"]


@dataclass(frozen=True)
class ProgramCall:
    """What is around the engines of a program.

    Attributes
    ----------
    name : str
        The class of the program.
    operators : tuple of str or None
        PyTorch's operators that a program of `trt_rt.compile` runs between its engines; None of other
        programs, whose code is their own.
    served : str
        Of a program that is run as one CUDA graph: ``replay``, ``capture`` or ``no graph``. "" for others.
    reason : str
        Why no graph served it; "" if one did.
    """

    name: str
    operators: tuple[str, ...] | None
    served: str
    reason: str


@dataclass(frozen=True)
class Explanation:
    """What a call did, and why. ``str()`` gives it as text, whose first line says what took the time.

    Attributes
    ----------
    host_us : float
        Microseconds until the call returned, with those that its observation took.
    device_us : float or None
        Microseconds of its work on the GPU; None on a CPU.
    engines : tuple of EngineCall
        The calls of engines, in their order. Empty if one CUDA graph of the whole program was launched.
    program : ProgramCall or None
        What is around the engines; None for a module of one engine.
    """

    host_us: float
    device_us: float | None
    engines: tuple[EngineCall, ...]
    program: ProgramCall | None

    @property
    def answer(self) -> str:
        """What took the time of the call, in one line."""
        us, clause = max(self._costs())
        line = f"The call took {self.host_us:.1f} µs on the host, {us / self.host_us:.0%} of it for {clause}."
        if self.device_us is not None and self.device_us > self.host_us:
            return (
                f"The GPU worked {self.device_us:.1f} µs, longer than the host, so the engine itself is "
                f"what takes the time. {line}"
            )
        return line

    def _costs(self) -> Iterator[tuple[float, str]]:
        if self.program is not None and self.program.served in ("replay", "capture"):
            yield self.host_us, self._outside_clause()
            return
        for engine in self.engines:
            yield from engine.costs()
        outside = max(self.host_us - sum(engine.host_us for engine in self.engines), 0.0)
        yield outside, self._outside_clause()

    def _outside_clause(self) -> str:
        program = self.program
        if program is not None and program.served == "replay":
            return f"the launch of one CUDA graph of the whole {program.name}"
        if program is not None and program.served == "capture":
            return f"the capture of one CUDA graph of the whole {program.name}, which later calls replay"
        if any(engine.made_context for engine in self.engines):
            return "making an execution context for this stream or thread, which later calls keep"
        if program is None:
            return "Python's way to the engine"
        if program.operators:
            count = len(program.operators)
            return f"{count} operator{'s' if count != 1 else ''} that PyTorch runs between the engines"
        return f"the Python code of {program.name} around the engines"

    def __str__(self) -> str:
        return "\n".join([self.answer, *self._lines()])

    def _lines(self) -> Iterator[str]:
        if self.device_us is not None:
            yield f"The GPU worked {self.device_us:.1f} µs."
        program = self.program
        if program is not None:
            yield from self._program_lines(program)
        for engine in self.engines:
            first, *rest = engine.lines()
            yield first
            yield from (f"  {line}" for line in rest)

    def _program_lines(self, program: ProgramCall) -> Iterator[str]:
        name = program.name
        if program.served == "replay":
            engines = "on a CPU, this runs the program" if self.engines else "no engine was called by itself"
            yield f"One CUDA graph of the whole {name} served the call; {engines}."
        elif program.served == "capture":
            yield f"The {name} was run and captured as one CUDA graph; later calls of this kind replay it."
        elif program.served:
            yield f"The {name} was run without its CUDA graph: {program.reason}."
        if program.operators:
            yield f"PyTorch runs {', '.join(program.operators)}."

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dumps` takes."""
        return {"answer": self.answer, **asdict(self)}
