"""The partition of a program as text for people, which the manifest holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from trt_rt.archive.strict_json import Fields
from trt_rt.compiled import EnginePart, Partition, PartTensor, TorchOperator
from trt_rt.errors import ArchiveError
from trt_rt.operator import EngineMeta, TensorMeta

__all__ = ["partition_of_engines", "partition_to_json", "read_partition"]


class _NamedEngine(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def meta(self) -> EngineMeta: ...


def partition_of_engines(engines: Sequence[_NamedEngine]) -> Partition:
    """Return the partition of a file that tells its engines, and not which operators run where."""
    return Partition(
        engines[0].meta.backend if engines else "",
        tuple(
            EnginePart(
                engine.name,
                (),
                tuple(map(_part_tensor, engine.meta.inputs)),
                tuple(map(_part_tensor, engine.meta.outputs)),
            )
            for engine in engines
        ),
    )


def _part_tensor(tensor: TensorMeta) -> PartTensor:
    return PartTensor(tensor.name, tensor.dtype, tensor.shape)


def partition_to_json(partition: Partition) -> list[dict[str, Any]]:
    """Return the steps of a partition for a manifest. Lines of the user's source are left out."""
    return [
        step.to_json()
        if isinstance(step, EnginePart)
        else {
            "name": step.name,
            "operator": step.operator,
            "reason": step.reason,
            "splits": step.splits,
            "is_glue": step.is_glue,
        }
        for step in partition.steps
    ]


def read_partition(backend: str, steps: list[Any], where: str) -> Partition:
    """Return the partition that a manifest tells.

    Raises
    ------
    ArchiveError
        A step has other fields.
    """
    return Partition(backend, tuple(_step(Fields(step, f"{where}, its partition")) for step in steps))


def _step(fields: Fields) -> EnginePart | TorchOperator:
    if "engine" in fields.values:
        return EnginePart(
            fields.get("engine", str),
            fields.texts("operators"),
            tuple(map(_tensor, fields.objects("inputs"))),
            tuple(map(_tensor, fields.objects("outputs"))),
        )
    return TorchOperator(
        fields.get("name", str),
        fields.get("operator", str),
        fields.get("reason", str),
        "",
        fields.get("splits", bool),
        fields.get("is_glue", bool),
    )


def _tensor(fields: Fields) -> PartTensor:
    dtype = getattr(torch, fields.get("dtype", str), None)
    shape = fields.get("shape", list)
    if not isinstance(dtype, torch.dtype) or any(type(size) not in (int, str) for size in shape):
        raise ArchiveError(f"{fields.where}: its dtype or shape is not one of a tensor.")
    return PartTensor(fields.get("name", str), dtype, tuple(shape))
