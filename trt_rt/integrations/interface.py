"""A program as a server sees it: named tensors in, named tensors out, and which sizes may vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils._pytree import TreeSpec, keystr, tree_flatten, tree_flatten_with_path, tree_unflatten

from trt_rt.compiled import Program
from trt_rt.compiled.size_bounds import LARGEST_SIZE
from trt_rt.errors import InputTypeError, InputValueError, TRTError

__all__ = ["ProgramInterface", "SizeRange", "TensorInterface", "without_plan"]


def without_plan(name: str, plan: memoryview) -> torch.Tensor:
    """Return memory for a plan that nobody reads: for ``Program.exported(keep_plan=without_plan)``.

    It is never written, so the system gives no pages to it.
    """
    return torch.empty(len(plan), dtype=torch.uint8)


@dataclass(frozen=True)
class SizeRange:
    """The sizes that one dimension may have.

    Attributes
    ----------
    min, max : int
        The smallest and the largest; `max` is None if there is no limit.
    """

    min: int
    max: int | None

    def __contains__(self, size: int) -> bool:
        return self.min <= size and (self.max is None or size <= self.max)

    def __str__(self) -> str:
        if self.max is None:
            return f"{self.min} or more"
        return str(self.min) if self.min == self.max else f"{self.min} to {self.max}"


@dataclass(frozen=True)
class TensorInterface:
    """One input or output of a program.

    Attributes
    ----------
    name : str
        For an input, the name of the parameter; entries of nested parameters have names such as ``boxes_0``.
        For an output, its place in the result: ``"scores"`` in a dict, ``"output_1"`` in a tuple,
        ``"output"`` if it is the only one.
    dtype : torch.dtype
        Of its elements.
    shape : tuple of SizeRange or None
        The range of each dimension. None for a dimension of an output that follows from the inputs.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[SizeRange | None, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The size of each dimension; -1 for one that varies, as servers write it."""
        return tuple(
            limits.min if limits is not None and limits.min == limits.max else -1 for limits in self.shape
        )


@dataclass(frozen=True)
class ProgramInterface:
    """The inputs and outputs of a program, as flat lists of named tensors.

    Attributes
    ----------
    inputs, outputs : tuple of TensorInterface
        In the order of the program's arguments and results, with nested ones taken apart.
    batch : SizeRange or None
        The range of the batch: the first dimension of every input and output, if that is the same symbol in
        all of them. None if there is no such dimension.
    """

    inputs: tuple[TensorInterface, ...]
    outputs: tuple[TensorInterface, ...]
    batch: SizeRange | None
    _in_spec: TreeSpec
    _out_spec: TreeSpec

    @classmethod
    def of(cls, exported: ExportedProgram) -> ProgramInterface:
        """Return the interface of an exported program, such as `Program.exported` returns.

        Raises
        ------
        TRTError
            An argument or a result is no tensor.
        """
        values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
        # A node has another name than its parameter where that is a name of Python's own, such as "input".
        parameters = {node.name: node.target for node in exported.graph.find_nodes(op="placeholder")}
        ranges = _Ranges(exported)
        names_in = exported.graph_signature.user_inputs
        names_out = exported.graph_signature.user_outputs
        tensors_in = [_tensor(values, name, "an argument") for name in names_in]
        tensors_out = [_tensor(values, name, "a result") for name in names_out]
        out_spec = exported.call_spec.out_spec
        inputs = tuple(
            TensorInterface(str(parameters[name]), tensor.dtype, tuple(map(ranges.of, tensor.shape)))
            for name, tensor in zip(names_in, tensors_in, strict=True)
        )
        outputs = tuple(
            TensorInterface(name, tensor.dtype, tuple(map(ranges.of_result, tensor.shape)))
            for name, tensor in zip(_result_names(out_spec), tensors_out, strict=True)
        )
        batch = ranges.common_first([*tensors_in, *tensors_out])
        return cls(inputs, outputs, batch, exported.call_spec.in_spec, out_spec)

    def call(self, program: Program, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run a program with named tensors.

        Parameters
        ----------
        program : Program
            The one whose interface this is.
        tensors : mapping
            Each input by its name, on the program's device.

        Returns
        -------
        dict
            Each output by its name, on the program's device.

        Raises
        ------
        InputError
            An input is missing, or is not one that the program takes.
        ExecutionError
            TensorRT or CUDA refuses.
        """
        args, kwargs = tree_unflatten([tensors[each.name] for each in self.inputs], self._in_spec)
        results, _ = tree_flatten(program(*args, **kwargs))
        return {each.name: result for each, result in zip(self.outputs, results, strict=True)}

    def check(self, tensors: Mapping[str, torch.Tensor], *, batch: SizeRange | None = None) -> None:
        """Check the names, dtypes and shapes of the inputs of one request.

        Parameters
        ----------
        tensors : mapping
            Each input by its name.
        batch : SizeRange, optional
            What the first dimension may be, where a server splits and joins batches. Default: what the
            program allows.

        Raises
        ------
        InputTypeError
            A name is not an input's, an input is missing, or a dtype differs.
        InputValueError
            A shape is outside of what the program allows.
        """
        known = {each.name: each for each in self.inputs}
        for name in tensors:
            if name not in known:
                raise InputTypeError(f"{name!r} is not an input. The inputs are {', '.join(known)}.")
        for name, each in known.items():
            if name not in tensors:
                raise InputTypeError(f"the input {name!r} is missing. The inputs are {', '.join(known)}.")
            tensor = tensors[name]
            if tensor.dtype != each.dtype:
                raise InputTypeError(
                    f"the input {name!r} has dtype {tensor.dtype}, and must have {each.dtype}."
                )
            shape = each.shape
            if batch is not None and self.batch is not None:
                shape = (batch, *shape[1:])
            fits = len(shape) == tensor.dim() and all(
                limits is None or size in limits for size, limits in zip(tensor.shape, shape, strict=True)
            )
            if not fits:
                allowed = ", ".join(map(str, shape))
                raise InputValueError(
                    f"the input {name!r} has shape {list(tensor.shape)}; allowed is [{allowed}]."
                )
        if self.batch is not None and len({tensor.shape[0] for tensor in tensors.values()}) > 1:
            sizes = ", ".join(f"{name!r} has {tensor.shape[0]}" for name, tensor in tensors.items())
            raise InputValueError(f"the first dimension must be the same in every input, and {sizes}.")


def _tensor(values: Mapping[str, Any], name: Any, what: str) -> torch.Tensor:
    value = values.get(name) if isinstance(name, str) else name
    if not isinstance(value, torch.Tensor):
        shown = "None" if value is None else type(value).__name__
        raise TRTError(
            f"the program has {what} that is no tensor ({shown}), and servers take and return tensors only. "
            "Wrap the model in a module that takes and returns tensors, and compile that."
        )
    return value


def _result_names(spec: TreeSpec) -> list[str]:
    """Return a name for each tensor of a result."""
    paths = [path for path, _ in tree_flatten_with_path(tree_unflatten([0] * spec.num_leaves, spec))[0]]
    if paths == [()]:
        return ["output"]
    return [_dotted(path) for path in paths]


def _dotted(path: Any) -> str:
    parts = [keystr((key,)).strip("[].'") for key in path]
    if parts[0].isdecimal():
        parts[0] = f"output_{parts[0]}"
    return "_".join(parts)


class _Ranges:
    """The sizes that the symbols of an exported program may have."""

    def __init__(self, exported: ExportedProgram) -> None:
        self._ranges = exported.range_constraints

    def of(self, size: int | torch.SymInt) -> SizeRange:
        if isinstance(size, int):
            return SizeRange(size, size)
        limits = self._ranges[size.node.expr]
        return SizeRange(int(limits.lower), int(limits.upper) if limits.upper <= LARGEST_SIZE else None)

    def of_result(self, size: int | torch.SymInt) -> SizeRange | None:
        """Return the range of a size that is an input's; None for sizes that are computed."""
        if isinstance(size, int) or size.node.expr in self._ranges:
            return self.of(size)
        return None

    def common_first(self, tensors: list[torch.Tensor]) -> SizeRange | None:
        """Return the range of the first dimension, if it is the same symbol everywhere."""
        if not tensors or any(tensor.dim() == 0 or isinstance(tensor.shape[0], int) for tensor in tensors):
            return None
        symbols = {tensor.shape[0].node.expr for tensor in tensors}  # type: ignore[attr-defined]
        [symbol, *others] = symbols
        return self.of(tensors[0].shape[0]) if not others and symbol in self._ranges else None
