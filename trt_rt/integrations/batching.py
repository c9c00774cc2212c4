"""Requests joined into batches that a program takes, and their results taken apart again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from trt_rt.compiled import Program
from trt_rt.errors import ExecutionError, TRTError
from trt_rt.integrations.interface import ProgramInterface, SizeRange

__all__ = ["Tensors", "batch_sizes", "run_batches"]

Tensors = Mapping[str, torch.Tensor]


def run_batches(
    program: Program, interface: ProgramInterface, requests: Sequence[Tensors], *, join: bool = True
) -> list[dict[str, torch.Tensor] | TRTError]:
    """Run a program for several requests, in as few calls as its sizes allow.

    Parameters
    ----------
    program : Program
        Runs on the current stream, outside of `enable_pre_allocated_outputs`: a request may take several
        calls, and each would overwrite the results of the one before.
    interface : ProgramInterface
        The program's.
    requests : sequence of mapping
        The inputs of each request by name, on the program's device. Requests whose shapes are equal but for
        the batch are joined. A request with more rows than the program takes is run in several calls, and one
        with fewer is filled up with copies of its last row.
    join : bool
        Whether requests may be joined and filled up.

    Returns
    -------
    list
        For each request its outputs by name, or the error with which the program refused it. When a call for
        several requests fails, each of them is run alone, so one bad request does not spoil the others.
    """
    results: list[dict[str, torch.Tensor] | TRTError] = [{} for _ in requests]
    for group in _groups(requests, together=join and interface.batch is not None):
        try:
            made = _run_group(program, interface, [requests[index] for index in group], join=join)
            for index, result in zip(group, made, strict=True):
                results[index] = result
        except Exception as error:  # an operator that runs in PyTorch may raise anything
            for index in group:
                alone = len(group) == 1
                results[index] = (
                    _as_ours(error) if alone else run_batches(program, interface, [requests[index]])[0]
                )
    return results


def _as_ours(error: Exception) -> TRTError:
    if isinstance(error, TRTError):
        return error
    found = ExecutionError(f"an operator that runs in PyTorch failed: {type(error).__name__}: {error}")
    found.__cause__ = error
    return found


def batch_sizes(rows: int, allowed: SizeRange) -> list[int]:
    """Return the number of rows of each call that together run `rows` rows; only the last is to be filled up.

    Parameters
    ----------
    rows : int
        At least 0. No rows need no call, unless the program runs without rows.
    allowed : SizeRange
        What the program takes.
    """
    largest = rows if allowed.max is None else allowed.max
    if rows == 0:
        return [0] if 0 in allowed else []
    whole, rest = divmod(rows, largest)
    return [largest] * whole + [rest] * (rest > 0)


def _groups(requests: Sequence[Tensors], *, together: bool) -> Iterator[list[int]]:
    """Yield the positions of the requests that can be joined."""
    groups: dict[object, list[int]] = {}
    for index, request in enumerate(requests):
        shapes = {name: (tensor.dtype, tuple(tensor.shape[1:])) for name, tensor in request.items()}
        groups.setdefault(tuple(sorted(shapes.items())) if together else index, []).append(index)
    yield from groups.values()


def _run_group(
    program: Program, interface: ProgramInterface, requests: Sequence[Tensors], *, join: bool
) -> list[dict[str, torch.Tensor]]:
    if not join or interface.batch is None:
        return [interface.call(program, request) for request in requests]
    for request in requests:
        interface.check(request, batch=SizeRange(0, None))
    rows = [_rows(request) for request in requests]
    inputs = _joined(requests)
    outputs = _run_rows(program, interface, inputs, sum(rows), interface.batch)
    parts = {name: tensor.split(rows) for name, tensor in outputs.items()}
    return [{name: part[index] for name, part in parts.items()} for index in range(len(requests))]


def _run_rows(
    program: Program, interface: ProgramInterface, inputs: Tensors, rows: int, allowed: SizeRange
) -> dict[str, torch.Tensor]:
    calls = batch_sizes(rows, allowed)
    if calls == [rows] and rows in allowed:
        return interface.call(program, inputs)
    pieces = []
    start = 0
    for size in calls:
        piece = {name: tensor[start : start + size] for name, tensor in inputs.items()}
        if missing := max(allowed.min - size, 0):
            piece = {name: _filled_up(tensor, missing) for name, tensor in piece.items()}
        outputs = interface.call(program, piece)
        pieces.append({name: tensor[:size] for name, tensor in outputs.items()})
        start += size
    if not pieces:  # no rows, and a program that wants some: run it with any, for the shapes of its outputs
        piece = {name: tensor.new_zeros(allowed.min, *tensor.shape[1:]) for name, tensor in inputs.items()}
        pieces.append({name: tensor[:0] for name, tensor in interface.call(program, piece).items()})
    return _joined(pieces)


def _rows(request: Tensors) -> int:
    return next(iter(request.values())).shape[0]


def _joined(requests: Sequence[Tensors]) -> dict[str, torch.Tensor]:
    if len(requests) == 1:
        return dict(requests[0])
    return {name: torch.cat([request[name] for request in requests]) for name in requests[0]}


def _filled_up(tensor: torch.Tensor, missing: int) -> torch.Tensor:
    """Return a tensor with copies of its last row behind it: values that a model certainly takes."""
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])])
