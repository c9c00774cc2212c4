"""Compares a program, and each of its engines, with eager PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_leaves, tree_unflatten

from trt_rt.compiled.program import Program
from trt_rt.compiler.onnx_model import last_line_of_user
from trt_rt.program.exporting import ProgramGraph
from trt_rt.program.part import Part
from trt_rt.program.size_ranges import SizeRanges

__all__ = ["differences_from_eager"]

_TOLERANCES = {torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}
"""Allowed difference, as a fraction of the largest value. Engines may compute float32 in TF32."""


def differences_from_eager(
    program: Program,
    graph: ProgramGraph,
    parts: Mapping[str, Part],
    ranges: SizeRanges,
    model: torch.nn.Module,
    *,
    truncate_double: bool = False,
) -> list[str]:
    """Run a program and the model on the same arguments, and return a sentence for each difference.

    The arguments are the examples, and with sizes that vary the examples cut or repeated to the smallest and
    to the largest sizes.

    Parameters
    ----------
    program : Program
        What was compiled.
    graph : ProgramGraph
        The whole model as a graph: its values before and after each part are what eager PyTorch computes.
    parts : mapping
        By the name of the engine.
    ranges : SizeRanges
        Of the program.
    model : torch.nn.Module
        What was exported. Its state is as before afterwards.
    truncate_double : bool
        Whether float64 was computed in float32.

    Returns
    -------
    list of str
        With the engine, its operators, the output, the difference, and the sizes.
    """
    found: list[str] = []
    for examples in _arguments(graph, ranges):
        sizes = ", ".join(str(tuple(leaf.shape)) for leaf in examples if isinstance(leaf, torch.Tensor))
        place = f"with inputs of the shapes {sizes}"
        found += _differences_of_parts(program, graph, parts, examples, place)
        found += _differences_of_whole(program, graph, model, examples, place, truncate_double)
    return found


def _arguments(graph: ProgramGraph, ranges: SizeRanges) -> Iterator[list[Any]]:
    """The leaves of the arguments for each run."""
    yield graph.examples
    placeholders = [node for node in graph.module.graph.nodes if node.op == "placeholder"]
    tensors = [node for node in placeholders if isinstance(node.meta["val"], torch.Tensor)]
    if not any(ranges.varies(size) for node in tensors for size in node.meta["val"].shape):
        return
    for smallest in (True, False):
        profile, end = (0, 0) if smallest else (ranges.number_of_profiles - 1, 2)
        yield [
            _resized(example, ranges.shapes(node.meta["val"].shape, profile)[end])
            if isinstance(example, torch.Tensor)
            else example
            for node, example in zip(placeholders, graph.examples, strict=True)
        ]


def _resized(example: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The example's values, cut or repeated: indices in it stay valid."""
    for axis, size in enumerate(shape):
        if example.shape[axis] != size:
            index = torch.arange(size, device=example.device) % max(example.shape[axis], 1)
            example = example.index_select(axis, index)
    return example


def _differences_of_parts(
    program: Program, graph: ProgramGraph, parts: Mapping[str, Part], leaves: Sequence[Any], place: str
) -> list[str]:
    found = []
    wanted = {node.name for part in parts.values() for node in (*part.inputs, *part.outputs)}
    with torch.no_grad(), _unchanged(_written(graph, graph.module)):
        values = _Values(graph, wanted)
        values.run(*(_own(leaf) for leaf in leaves))
    for name, part in parts.items():
        engine = program.get_submodule(name)
        results = engine(*(values.kept[node.name] for node in part.inputs))
        for node, result in zip(part.outputs, tree_leaves(results), strict=True):
            difference = _difference(result, values.kept[node.name])
            if difference:
                found.append(f"{name} ({_operators(part)}): its output {node.name} {difference} {place}")
    return found


def _differences_of_whole(
    program: Program,
    graph: ProgramGraph,
    model: torch.nn.Module,
    leaves: Sequence[Any],
    place: str,
    truncate_double: bool,
) -> list[str]:
    found = []
    args, kwargs = tree_unflatten([_own(leaf) for leaf in leaves], graph.in_spec)
    own_args, own_kwargs = tree_unflatten([_own(leaf) for leaf in leaves], graph.in_spec)
    state = [*model.buffers(), *program.buffers()]
    for module in (model, program.weights):
        state += [tensor for tensor in _written(graph, module) if isinstance(tensor, torch.nn.Parameter)]
    with torch.no_grad(), torch.random.fork_rng(), _unchanged(state):
        torch.manual_seed(0)
        wanted = list(map(_own, tree_leaves((model(*args, **kwargs), args, kwargs))))
        torch.manual_seed(0)
        result = list(map(_own, tree_leaves((program(*own_args, **own_kwargs), own_args, own_kwargs))))
    for number, (one, other) in enumerate(zip(result, wanted, strict=True)):
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            difference = _difference(one, other, truncate_double)
            if difference:
                found.append(f"the whole program: its result {number} {difference} {place}")
    return found


class _Values(Interpreter):
    """Runs a graph in PyTorch and keeps copies of some values."""

    def __init__(self, graph: ProgramGraph, wanted: set[str]) -> None:
        super().__init__(graph.module)
        self._wanted = wanted
        self.kept: dict[str, torch.Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if n.name in self._wanted:
            self.kept[n.name] = value.detach().clone(memory_format=torch.contiguous_format)
        return value


@contextmanager
def _unchanged(tensors: Sequence[torch.Tensor]) -> Iterator[None]:
    before = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)


def _written(graph: ProgramGraph, module: torch.nn.Module) -> list[torch.Tensor]:
    """Return the parameters and buffers of a module that the graph writes to."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return [own[name] for name in sorted(graph.mutated_state) if name in own]


def _own(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf


def _difference(found: torch.Tensor, wanted: torch.Tensor, truncate_double: bool = False) -> str:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return (
            f"is {found.dtype}{list(found.shape)}, and eager PyTorch's is {wanted.dtype}{list(wanted.shape)}"
        )
    if not wanted.numel():
        return ""
    if wanted.is_complex():
        found, wanted = torch.view_as_real(found), torch.view_as_real(wanted)
    if not wanted.is_floating_point():
        wrong = int((found != wanted).sum())
        return f"differs from eager PyTorch's in {wrong} of {wanted.numel()} elements" if wrong else ""
    one, other = found.double(), wanted.double()
    same = (one == other) | (one.isnan() & other.isnan())
    gap = torch.where(same, 0.0, (one - other).abs()).nan_to_num(nan=float("inf")).max().item()
    largest = other.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().max().item()
    computed = torch.float32 if truncate_double and wanted.dtype is torch.float64 else wanted.dtype
    allowed = _TOLERANCES.get(computed, 1e-6) * max(largest, 1.0)
    if gap <= allowed:
        return ""
    limit = f"{allowed:.2g} allowed"
    return f"differs from eager PyTorch's by up to {gap:.3g} (largest value {largest:.3g}, {limit})"


def _operators(part: Part) -> str:
    first, last = (
        f"{node.target}{f' at {line}' if line else ''}"
        for node in (part.nodes[0], part.nodes[-1])
        for line in (last_line_of_user(node.meta.get("stack_trace") or ""),)
    )
    return f"{first} to {last}"
