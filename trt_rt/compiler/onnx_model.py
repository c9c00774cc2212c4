"""An ONNX model from a file, from bytes or from memory, and the source lines of its nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from trt_rt.errors import CompileError

__all__ = ["OnnxModel", "last_line_of_user"]

_STACK_TRACE = "pkg.torch.onnx.stack_trace"
"""The key of a node's metadata under which torch.onnx.export stores the source lines of the model."""

_FLOATING_TYPES = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}
"""ONNX's TensorProto.DataType of the floating-point types."""


class OnnxModel:
    """An ONNX model as a path, as serialized bytes or as a ``ModelProto``.

    Parameters
    ----------
    source : path-like, str, bytes-like or onnx.ModelProto
        A str is a path. Only a model that is given as a path may have external data, in the same folder.

    Raises
    ------
    CompileError
        The file does not exist, or its external data is missing.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self._path: Path | None = None
        if isinstance(source, (str, os.PathLike)):
            self._path = Path(source)
            if not self._path.is_file():
                raise CompileError(f"there is no ONNX file {self}")
        self._check_external_data()

    @classmethod
    def is_source(cls, model: Any) -> bool:
        """Return whether `model` is an ONNX model or names the file of one."""
        return isinstance(model, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(
            model, "SerializeToString"
        )

    def __str__(self) -> str:
        return "the ONNX model" if self._path is None else repr(os.fspath(self._path))

    def parse_with(self, parser: Any) -> bool:
        """Parse the model with TensorRT's ``OnnxParser``, and return whether that succeeded."""
        if self._path is not None:
            return bool(parser.parse_from_file(os.fspath(self._path)))
        return bool(parser.parse(self._serialized))

    def source_line(self, node_index: int, node_name: str) -> str | None:
        """Return the line of the user's program that a node comes from.

        Parameters
        ----------
        node_index : int
            The position of the node in the graph.
        node_name : str
            Its name. Where the node at that position has another (it is part of a subgraph, or a function),
            it is looked up by name.

        Returns
        -------
        str or None
            File, line number and the line itself, as in a traceback. None if the exporter stored no lines.
        """
        nodes = [] if self.proto is None else list(self.proto.graph.node)
        at_index = nodes[node_index : node_index + 1] if node_index >= 0 else []
        for node in [*at_index, *nodes]:
            if node.name == node_name:
                traces = [entry.value for entry in node.metadata_props if entry.key == _STACK_TRACE]
                return last_line_of_user(traces[0]) if traces else None
        return None

    def floating_dtypes(self) -> set[torch.dtype]:
        """Return the floating-point types of inputs and weights, without those of scalars.

        The set is empty if the package onnx is missing.
        """
        if self.proto is None:
            return set()
        graph = self.proto.graph
        numbers = [tensor.data_type for tensor in graph.initializer if tensor.dims]
        numbers += [value.type.tensor_type.elem_type for value in graph.input]
        return {_FLOATING_TYPES[number] for number in numbers if number in _FLOATING_TYPES}

    @cached_property
    def _serialized(self) -> Any:
        if isinstance(self._source, (bytes, bytearray, memoryview)):
            return self._source
        try:
            return self._source.SerializeToString()
        except ValueError as error:  # protobuf's: over 2 GiB
            raise CompileError(
                f"the ONNX model cannot be serialized in memory ({error}): save it with external data and "
                "give build its path"
            ) from error

    @cached_property
    def proto(self) -> Any | None:
        """The ``ModelProto``, without external data; None if it is corrupt or the package onnx is missing."""
        if hasattr(self._source, "SerializeToString"):
            return self._source
        try:
            import onnx
        except ImportError:
            return None
        try:
            if self._path is not None:
                return onnx.load(self._path, load_external_data=False)
            return onnx.load_from_string(bytes(self._source))
        except Exception:  # of protobuf; TensorRT's parser explains a damaged model better
            return None

    def _check_external_data(self) -> None:
        """Raise with the names of missing files. TensorRT's parser would name a tensor at most."""
        for tensor in self._external_tensors():
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if self._path is None:
                raise CompileError(
                    f"the weight {tensor.name!r} of the ONNX model is in the file {location!r}, and bytes "
                    "have no directory to look for it in: give build the path of the model"
                )
            if not (self._path.parent / location).is_file():
                raise CompileError(
                    f"the weight {tensor.name!r} of {self} should be in the file {location!r} in "
                    f"{os.fspath(self._path.parent.absolute())!r}, which does not exist: models with "
                    "external data are moved together with it"
                )

    def _external_tensors(self) -> Iterator[Any]:
        external = 1  # onnx.TensorProto.EXTERNAL
        if self.proto is not None:
            yield from (tensor for tensor in self.proto.graph.initializer if tensor.data_location == external)


def last_line_of_user(stack_trace: str) -> str | None:
    """Return the innermost line outside of PyTorch, or the innermost line if all are PyTorch's."""
    lines = stack_trace.splitlines()
    torch_folder = os.path.dirname(torch.__file__)
    frames = [
        (line.strip(), code.strip())
        for line, code in zip(lines, [*lines[1:], ""], strict=False)
        if line.strip().startswith("File ")
    ]
    of_user = [frame for frame in frames if torch_folder not in frame[0] and 'File "<' not in frame[0]]
    for place, code in reversed(of_user or frames):
        return f"{place}: {code}" if code and not code.startswith("File ") else place
    return None
