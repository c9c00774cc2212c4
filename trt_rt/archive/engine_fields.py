"""Writes engines as Torch-TensorRT's C++ runtime pickles them."""

from __future__ import annotations

import base64
import io
import pickle
import struct
from collections.abc import Mapping
from typing import Any

from trt_rt.archive.container_writer import ContainerWriter
from trt_rt.archive.engine_pickle import ENGINE, RESTORE
from trt_rt.errors import ArchiveError, PlanError
from trt_rt.operator import EngineMeta, TensorMeta
from trt_rt.operator.expressions import parse_size

__all__ = ["VERSIONS", "EngineFields"]

VERSIONS: Mapping[str, tuple[str, int]] = {
    "2.11": ("8", 11),
    "2.12": ("9", 12),
    "2.13": ("9", 12),
    "2.14": ("10", 13),
}
"""Of each version of Torch-TensorRT the number of its format, and how many strings an engine has."""

_DELIMITER = "%"
_KIND = "0"
"""A GPU, not a deep learning accelerator."""

_UNKNOWN_GPU = "GPU"
_LARGEST_PLAN = (2**32 - 4) // 4 * 3
"""Bytes. A string of a pickle has fewer than 2**32, and the plan is in base64."""

_NO = "0"


class EngineFields:
    """What engines of one file have in common.

    Parameters
    ----------
    version : str
        Of the Torch-TensorRT that will read them, such as "2.13".
    compute_capability : str
        Of the GPU that they were built for, such as "9.0".
    gpu : str
        The name of that GPU; "" if it is not known. Torch-TensorRT compares it where there are several GPUs.
    platform : str
        In Torch-TensorRT's words, such as "linux_x86_64".
    where : str
        For messages.
    """

    def __init__(self, version: str, compute_capability: str, gpu: str, platform: str, where: str) -> None:
        self._format, self._count = VERSIONS[version]
        self._capability = compute_capability.split(".")
        self._gpu = gpu or _UNKNOWN_GPU
        self._platform = platform
        self._where = where

    def check(self, name: str, plan_size: int, meta: EngineMeta) -> None:
        """Check that Torch-TensorRT has a form for everything that an engine has.

        Raises
        ------
        ArchiveError
            It has none.
        """
        if meta.aliased_io:
            raise ArchiveError(
                f"{self._where}: the engine {name!r} writes into its inputs, and Torch-TensorRT's graphs "
                "would write twice."
            )
        tensors = (*meta.inputs, *meta.outputs)
        if any(tensor.is_host for tensor in tensors):
            raise ArchiveError(
                f"{self._where}: the engine {name!r} has shape tensors, which Torch-TensorRT takes from "
                "the GPU."
            )
        for tensor in tensors:
            if _DELIMITER in tensor.name:
                raise ArchiveError(
                    f"{self._where}: Torch-TensorRT separates names by '%', and the tensor {tensor.name!r} "
                    f"of the engine {name!r} has it in its name."
                )
        if plan_size > _LARGEST_PLAN:
            raise ArchiveError(
                f"{self._where}: the plan of {name!r} has {plan_size:,} bytes, and Torch-TensorRT's form has "
                f"place for {_LARGEST_PLAN:,}."
            )

    def record(self, name: str, plan: bytes | memoryview, meta: EngineMeta) -> bytes:
        """Return the record of an engine that was checked."""
        depends_on_data = any(str(size).startswith("?") for each in meta.outputs for size in each.shape)
        fields = [
            self._format,
            f"{name}_engine",
            _DELIMITER.join(["0", *self._capability, _KIND, self._gpu]),
            base64.b64encode(plan).decode(),
            _DELIMITER.join(tensor.name for tensor in meta.inputs),
            _DELIMITER.join(tensor.name for tensor in meta.outputs),
            _NO,  # not for other GPUs than that one
            base64.b64encode(pickle.dumps(_metadata(meta), protocol=2)).decode(),
            self._platform,
            str(int(depends_on_data)),
            _NO,  # memory is allocated once
            _NO,  # not for several GPUs
            "",  # no output in the memory of an input
        ][: self._count]
        return _archive(fields)


def _archive(fields: list[str]) -> bytes:
    """The ZIP file that PyTorch writes for an object with these strings."""
    content = b"".join(
        (
            pickle.PROTO + b"\x02",
            _global(ENGINE) + pickle.EMPTY_TUPLE + pickle.NEWOBJ,
            _global(RESTORE) + pickle.EMPTY_LIST + pickle.MARK,
            *map(_text, fields),
            pickle.APPENDS + _text("List[str]"),
            pickle.TUPLE2 + pickle.REDUCE + pickle.BUILD + pickle.STOP,
        )
    )
    buffer = io.BytesIO()
    with ContainerWriter(buffer) as writer:
        writer.write_bytes("data.pkl", content)
        writer.write_bytes("byteorder", b"little")
        writer.write_bytes("version", b"3\n")
    return buffer.getvalue()


def _global(name: str) -> bytes:
    module, _, attribute = name.partition(" ")
    return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()


def _text(value: str) -> bytes:
    content = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(content)) + content


def _metadata(meta: EngineMeta) -> dict[str, Any]:
    """What Torch-TensorRT keeps of an engine: the shapes with which it traces a program again."""
    shapes: dict[str, Any] = {}
    try:
        for kind, tensors in (("inputs", meta.inputs), ("outputs", meta.outputs)):
            shapes[kind] = [
                {"shape_exprs": _expressions(each, meta), "dtype": each.dtype, "name": each.name}
                for each in tensors
            ]
    except (PlanError, TypeError, AttributeError):  # sizes that depend on data, or have no such expression
        return {"weight_name_map": None, "inout_symexprs": None, "output_tensors_are_unowned": False}
    return {"weight_name_map": None, "inout_symexprs": shapes, "output_tensors_are_unowned": False}


def _expressions(tensor: TensorMeta, meta: EngineMeta) -> list[Any]:
    import sympy  # as torch has it

    symbols = {name: sympy.Symbol(name, integer=True, positive=True) for name in meta.symbols}
    return [
        parse_size(size, meta.symbols)(symbols) if isinstance(size, str) else size for size in tensor.shape
    ]
