"""The parts of a program, with reasons: engines, and operators that PyTorch runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt._core.dtype_name import dtype_name

__all__ = ["EnginePart", "PartTensor", "Partition", "TorchOperator"]


@dataclass(frozen=True)
class PartTensor:
    """A tensor that goes into an engine or comes out of it.

    Attributes
    ----------
    name : str
        Of the node in the program's graph.
    dtype : torch.dtype
        Of its elements.
    shape : tuple
        Sizes; an expression, as a str, where a size varies.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape)) or "scalar"
        return f"{self.name} {dtype_name(self.dtype)} {sizes}"

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dumps` takes."""
        return {"name": self.name, "dtype": dtype_name(self.dtype), "shape": list(self.shape)}


@dataclass(frozen=True)
class EnginePart:
    """Operators that one engine runs.

    Attributes
    ----------
    name : str
        Of the program's submodule that runs them.
    operators : tuple of str
        PyTorch's names, in order.
    inputs, outputs : tuple of PartTensor
        What goes in and comes out.
    """

    name: str
    operators: tuple[str, ...]
    inputs: tuple[PartTensor, ...]
    outputs: tuple[PartTensor, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dumps` takes."""
        return {
            "engine": self.name,
            "operators": list(self.operators),
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
        }


@dataclass(frozen=True)
class TorchOperator:
    """An operator that PyTorch runs.

    Attributes
    ----------
    name : str
        Of the node in the program's graph.
    operator : str
        PyTorch's name.
    reason : str
        Why it is in no engine.
    source : str
        The line of the user's model, as in a traceback; "" where it is not known.
    splits : bool
        Whether it stands between two engines: it needs what one computes, and another needs its result.
    is_glue : bool
        Whether it only views or casts what engines or the caller give, or writes it back.
    """

    name: str
    operator: str
    reason: str
    source: str
    splits: bool
    is_glue: bool


@dataclass(frozen=True)
class Partition:
    """How a model is divided.

    Attributes
    ----------
    backend : str
        That builds the engines.
    steps : tuple of EnginePart and TorchOperator
        In the order in which they run.
    """

    backend: str
    steps: tuple[EnginePart | TorchOperator, ...]

    @property
    def engines(self) -> tuple[EnginePart, ...]:
        """The steps that are engines."""
        return tuple(step for step in self.steps if isinstance(step, EnginePart))

    @property
    def torch_operators(self) -> tuple[TorchOperator, ...]:
        """The steps that PyTorch runs."""
        return tuple(step for step in self.steps if isinstance(step, TorchOperator))

    @property
    def splits(self) -> tuple[TorchOperator, ...]:
        """The operators that divide what could otherwise be one engine."""
        return tuple(step for step in self.torch_operators if step.splits)

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the table of :meth:`__str__`: what runs, what it runs, and shapes or the reason."""
        rows = []
        for step in self.steps:
            if isinstance(step, EnginePart):
                tensors = f"{', '.join(map(str, step.inputs))} -> {', '.join(map(str, step.outputs))}"
                rows.append((step.name, _counted(step.operators), tensors))
            else:
                mark = "PyTorch (splits)" if step.splits else "PyTorch"
                source = f" [{step.source}]" if step.source else ""
                rows.append((mark, step.operator, f"{step.reason}{source}"))
        return rows

    def summary(self) -> str:
        """Return one sentence."""
        in_engines = sum(len(engine.operators) for engine in self.engines)
        engines, operators = len(self.engines), len(self.torch_operators)
        if not self.steps:
            return "no engines; PyTorch runs everything"
        named = f"{engines} engine{'s' if engines != 1 else ''} of {self.backend}"
        if not in_engines and not operators:  # a program of Torch-TensorRT, or of torch.export.save
            return f"{named}; the file does not tell which operators run where"
        text = (
            f"{named} with {in_engines} operators, "
            f"{operators} operator{'s' if operators != 1 else ''} in PyTorch"
        )
        if self.splits:
            places = [f"{step.operator}{f' at {step.source}' if step.source else ''}" for step in self.splits]
            text += f"; split by {'; '.join(places)}"
        return text

    def __str__(self) -> str:
        rows = [("runs", "operators", "tensors, or the reason"), *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        lines = ["  ".join((row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2])) for row in rows]
        return "\n".join([self.summary(), *(line.rstrip() for line in lines)])


def _counted(operators: tuple[str, ...]) -> str:
    short = Counter(operator.removeprefix("aten.").partition(".")[0] for operator in operators)
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in short.items())
