"""The Open Inference Protocol (KServe's version 2), which Triton speaks too: requests over HTTP.

Tensors travel as JSON numbers, or as raw bytes behind the JSON (the protocol's binary extension). The fields
are those of the protocol's page "Predict Protocol - Version 2" and of Triton's page "Binary Tensor Data
Extension".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = [
    "JSON_LENGTH_HEADER",
    "InferenceRequest",
    "RequestError",
    "WireTensor",
    "check_outputs",
    "checked_tensor",
    "read_request",
    "tensor_of_numbers",
    "write_response",
]

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
"""The HTTP header that says how many bytes of the body are JSON; the rest are tensors."""

_DATATYPES = {
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "INT8": torch.int8,
    "UINT8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in _DATATYPES.items()}
_MOST_DIMENSIONS = 16
_MOST_ELEMENTS = 2**56
"""Of a shape whose sizes of 0 are left out: PyTorch computes strides of tensors without elements, too."""
_MOST_DIGITS = 20


class RequestError(Exception):
    """A request that cannot be answered, with the HTTP status for it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class WireTensor:
    """A tensor as bytes, for the way between processes.

    Attributes
    ----------
    datatype : str
        The protocol's name of the dtype, such as ``"FP32"``.
    shape : tuple of int
        Its sizes.
    data : bytes
        Its elements, row-major and little-endian.
    """

    datatype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, tensor: torch.Tensor) -> WireTensor:
        """Return the bytes of a tensor on the CPU.

        Raises
        ------
        RequestError
            The protocol has no name for its dtype.
        """
        if tensor.dtype not in _NAMES:
            raise RequestError(500, f"the protocol has no name for {tensor.dtype}.")
        flat = tensor.detach().contiguous().reshape(-1)
        return cls(_NAMES[tensor.dtype], tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes())

    def tensor(self) -> torch.Tensor:
        """Return the tensor, in memory of its own."""
        dtype = _DATATYPES[self.datatype]
        if not self.data:
            return torch.empty(self.shape, dtype=dtype)
        return torch.frombuffer(bytearray(self.data), dtype=dtype).reshape(self.shape)


@dataclass(frozen=True)
class InferenceRequest:
    """What a client asks for.

    Attributes
    ----------
    identifier : str
        The client's own name for the request, which the response repeats.
    inputs : mapping of str to WireTensor
        By name.
    outputs : mapping of str to bool
        The outputs that the client wants, each with whether as bytes. Empty for all of them.
    binary_outputs : bool
        Whether outputs that `outputs` does not name come as bytes.
    """

    identifier: str
    inputs: Mapping[str, WireTensor]
    outputs: Mapping[str, bool]
    binary_outputs: bool


def read_request(body: bytes, json_length: str | None) -> InferenceRequest:
    """Read the body of a request.

    Parameters
    ----------
    body : bytes
        JSON, and the bytes of tensors behind it.
    json_length : str or None
        The value of the header `JSON_LENGTH_HEADER`, if the request has it.

    Raises
    ------
    RequestError
        The body is not a request of the protocol; the message says what is wrong.
    """
    end = len(body)
    if json_length is not None:
        # Python converts no longer strings of digits than this process allows.
        is_length = json_length.isdecimal() and len(json_length) <= _MOST_DIGITS
        if not is_length or int(json_length) > len(body):
            given = json_length[:_MOST_DIGITS]
            raise RequestError(400, f"{JSON_LENGTH_HEADER} is {given!r}, and the body has {len(body)} bytes.")
        end = int(json_length)
    try:
        content = json.loads(body[:end])
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {error}.") from None
    fields = _object(content, "the request")
    inputs: dict[str, WireTensor] = {}
    position = end
    for entry in _array(fields.get("inputs", []), "'inputs'"):
        tensor = _object(entry, "an input")
        name = _text(tensor.get("name"), "the name of an input")
        if name in inputs:
            raise RequestError(400, f"the input {name!r} is given twice.")
        size = _object(tensor.get("parameters", {}), "'parameters'").get("binary_data_size")
        if size is None:
            inputs[name] = _from_numbers(name, tensor)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(body) - position:
            raise RequestError(
                400, f"the input {name!r} has binary_data_size {size!r}, which the body does not have."
            )
        inputs[name] = _checked(name, tensor, body[position : position + size])
        position += size
    if position != len(body):
        raise RequestError(400, f"the body has {len(body) - position} bytes that belong to no input.")
    outputs = {
        _text(entry.get("name"), "the name of an output"): bool(
            _object(entry.get("parameters", {}), "'parameters'").get("binary_data", False)
        )
        for entry in (_object(each, "an output") for each in _array(fields.get("outputs", []), "'outputs'"))
    }
    parameters = _object(fields.get("parameters", {}), "'parameters'")
    binary = bool(parameters.get("binary_data_output", False))
    identifier = fields.get("id")
    return InferenceRequest("" if identifier is None else str(identifier), inputs, outputs, binary)


def write_response(
    request: InferenceRequest, model: str, results: Mapping[str, WireTensor]
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a response.

    Parameters
    ----------
    request : InferenceRequest
        What was asked.
    model : str
        The model's name.
    results : mapping
        Every output by name.

    Raises
    ------
    RequestError
        The request wants an output that the model does not have, or numbers as JSON that JSON does not have.
    """
    check_outputs(request.outputs, results)
    entries = []
    parts = []
    for name, tensor in results.items():
        if request.outputs and name not in request.outputs:
            continue
        entry: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if request.outputs.get(name, request.binary_outputs):
            entry["parameters"] = {"binary_data_size": len(tensor.data)}
            parts.append(tensor.data)
        else:
            entry["data"] = _numbers(tensor)
        entries.append(entry)
    content: dict[str, Any] = {"model_name": model, "outputs": entries}
    if request.identifier:
        content["id"] = request.identifier
    try:
        text = json.dumps(content, allow_nan=False).encode()
    except ValueError:
        raise RequestError(
            400, "an output has NaN or an infinity, which JSON lacks: ask for outputs as binary data."
        ) from None
    if not parts:
        return text, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH_HEADER: str(len(text))}
    return b"".join([text, *parts]), headers


def check_outputs(names: Iterable[str], results: Mapping[str, WireTensor]) -> None:
    """Check that a request asks for outputs of the model only.

    Raises
    ------
    RequestError
        It asks for another one.
    """
    for name in names:
        if name not in results:
            raise RequestError(400, f"{name!r} is not an output. The outputs are {', '.join(results)}.")


def tensor_of_numbers(name: str, datatype: str, shape: list[int], numbers: list[Any]) -> WireTensor:
    """Return a tensor of a request from its numbers.

    Raises
    ------
    RequestError
        They do not fit the shape and the datatype, or the datatype is not known.
    """
    return _from_numbers(name, {"datatype": datatype, "shape": shape, "data": numbers})


def checked_tensor(name: str, datatype: str, shape: list[int], data: bytes) -> WireTensor:
    """Return a tensor of a request after a check that its bytes fit its shape and datatype.

    Raises
    ------
    RequestError
        They do not fit, or the datatype is not known.
    """
    return _checked(name, {"datatype": datatype, "shape": shape}, data)


def _from_numbers(name: str, tensor: dict[str, Any]) -> WireTensor:
    datatype, shape = _datatype(name, tensor), _shape(name, tensor)
    dtype = _DATATYPES[datatype]
    numbers = _flat(tensor.get("data"), name)
    if len(numbers) != math.prod(shape):
        raise RequestError(
            400,
            f"the input {name!r} has {len(numbers)} numbers, and its shape {list(shape)} wants "
            f"{math.prod(shape)}.",
        )
    try:
        values = torch.tensor(numbers, dtype=dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise RequestError(400, f"the data of the input {name!r} is not {datatype}: {error}.") from None
    if not dtype.is_floating_point and values.tolist() != numbers:  # 1.5 or, for UINT8, -1
        raise RequestError(400, f"the data of the input {name!r} is not {datatype}.")
    return WireTensor(datatype, shape, values.view(torch.uint8).numpy().tobytes())


def _flat(data: Any, name: str) -> list[Any]:
    """Return the numbers of a nested or flat array; nesting deeper than a tensor's is refused."""
    numbers = _array(data, f"the data of the input {name!r}")
    for _ in range(_MOST_DIMENSIONS):
        if not any(isinstance(item, list) for item in numbers):
            return numbers
        numbers = [each for item in numbers for each in (item if isinstance(item, list) else [item])]
    raise RequestError(400, f"the data of the input {name!r} is nested too deep.")


def _checked(name: str, tensor: dict[str, Any], data: bytes) -> WireTensor:
    datatype, shape = _datatype(name, tensor), _shape(name, tensor)
    wanted = math.prod(shape) * _DATATYPES[datatype].itemsize
    if len(data) != wanted:
        raise RequestError(
            400,
            f"the input {name!r} has {len(data)} bytes, and {datatype} of shape {list(shape)} has {wanted}.",
        )
    if datatype == "BOOL" and data.translate(None, b"\0\1"):  # undefined for PyTorch and TensorRT
        raise RequestError(400, f"the input {name!r} is BOOL and has bytes other than 0 and 1.")
    return WireTensor(datatype, shape, bytes(data))


def _datatype(name: str, tensor: dict[str, Any]) -> str:
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in _DATATYPES:
        known = ", ".join(_DATATYPES)
        raise RequestError(400, f"the input {name!r} has datatype {datatype!r}; known are {known}.")
    return datatype


def _shape(name: str, tensor: dict[str, Any]) -> tuple[int, ...]:
    shape = tensor.get("shape")
    is_shape = isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS
    if not is_shape or not all(type(size) is int and 0 <= size < 2**31 for size in shape or ()):
        raise RequestError(400, f"the input {name!r} has shape {shape!r}, which is no list of sizes.")
    if math.prod(size or 1 for size in shape or ()) > _MOST_ELEMENTS:
        raise RequestError(400, f"the input {name!r} has shape {shape!r}, which is too large.")
    return tuple(shape or ())


def _numbers(tensor: WireTensor) -> list[Any]:
    return tensor.tensor().reshape(-1).tolist()


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(400, f"{what} must be a JSON object.")
    return value


def _array(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise RequestError(400, f"{what} must be a JSON array.")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise RequestError(400, f"{what} must be a string.")
    return value
