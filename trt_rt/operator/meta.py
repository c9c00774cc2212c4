"""The description of an engine in a graph: names, dtypes and shapes, known without loading the engine."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from trt_rt._core.dtype_name import dtype_name
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt.errors import InputValueError, PlanError
from trt_rt.operator.expressions import Size, is_symbol, parse_size

__all__ = ["EngineMeta", "TensorMeta"]

_VERSION = 1
_MOST_DIMENSIONS = 8
_NOT_OF_ENGINES = ("qint", "quint", "bits")
"""How the names of dtypes begin that plain tensors do not have."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class TensorMeta:
    """One input or output of an engine.

    Attributes
    ----------
    name : str
        The binding's.
    dtype : torch.dtype
        Of its elements.
    shape : tuple of int or str
        A size that varies is a symbol in inputs. In outputs it is an expression over the symbols of inputs,
        or ``"?"`` and a name for a size that is known after the run only.
    is_host : bool
        Whether it is a shape tensor, which is on the CPU in any case.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]
    is_host: bool = False


@dataclass(frozen=True)
class EngineMeta:
    """The `meta` argument of the operator.

    Attributes
    ----------
    backend : str
        The name of the backend that runs the plan.
    sha256 : str
        Of the plan, in hexadecimal.
    inputs, outputs : tuple of TensorMeta
        In the order of the operator's arguments and results.
    aliased_io : dict
        From outputs to the inputs in whose memory the engine writes them. To the operator they are results
        like the others: it gives the engine copies of these inputs.
    device : str or None
        The type of the results' device; None if the inputs tell.
    module : str or None
        The identity of the `TRTModule` of this process that makes the call; None in graphs that can be saved.
    """

    backend: str
    sha256: str
    inputs: tuple[TensorMeta, ...]
    outputs: tuple[TensorMeta, ...]
    aliased_io: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    module: str | None = None

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names of the sizes of inputs that vary."""
        return tuple(
            dict.fromkeys(size for each in self.inputs for size in each.shape if isinstance(size, str))
        )

    @property
    def device_input(self) -> int | None:
        """The position of the first input on the engine's device; None if there is none."""
        return next((position for position, each in enumerate(self.inputs) if not each.is_host), None)

    @functools.cached_property
    def output_sizes(self) -> tuple[tuple[int | str | Size, ...], ...]:
        """The sizes of each output: a number, ``"?"`` and a name, or a function of the symbols' sizes."""
        return tuple(
            tuple(
                size if isinstance(size, int) or size.startswith("?") else parse_size(size, self.symbols)
                for size in each.shape
            )
            for each in self.outputs
        )

    def dumps(self) -> str:
        """Return the compact JSON text, with sorted keys."""
        content: dict[str, Any] = {
            "version": _VERSION,
            "backend": self.backend,
            "sha256": self.sha256,
            "inputs": list(map(_tensor_content, self.inputs)),
            "outputs": list(map(_tensor_content, self.outputs)),
        }
        if self.aliased_io:
            content["aliased_io"] = dict(self.aliased_io)
        if self.device is not None:
            content["device"] = self.device
        if self.module is not None:
            content["module"] = self.module
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> EngineMeta:
        """Read the JSON text of `dumps`; every field is checked.

        Raises
        ------
        PlanError
            The text is no such description, or one of a later version.
        """
        try:
            return _parsed(text)
        except _Wrong as error:
            raise PlanError(
                f"the description of an engine in a program is not valid: {error}. The file was damaged, or "
                "something else than trt_rt has written it: save the program again."
            ) from None

    def bind_symbols(self, shapes: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Return the sizes of the symbols in given shapes of all inputs.

        Parameters
        ----------
        shapes : sequence of sequence of int or SymInt
            One for each input, in their order.

        Raises
        ------
        InputValueError
            The number of inputs, a rank or a fixed size is another.
        """
        if len(shapes) != len(self.inputs):
            names = [each.name for each in self.inputs]
            raise InputValueError(f"the engine takes {len(names)} inputs, {names}; got {len(shapes)}.")
        sizes: dict[str, Any] = {}
        for tensor, shape in zip(self.inputs, shapes, strict=True):
            if len(shape) != len(tensor.shape):
                raise InputValueError(_other_shape(tensor, shape))
            for wanted, size in zip(tensor.shape, shape, strict=True):
                expected = sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted
                if type(size) is int and type(expected) is int:
                    if size != expected:
                        raise InputValueError(_other_shape(tensor, shape))
                elif size is not expected:
                    torch._check(size == expected, functools.partial(_other_shape, tensor, shape))
        return sizes


def _other_shape(tensor: TensorMeta, shape: Sequence[Any]) -> str:
    sizes = ", ".join(map(str, tensor.shape))
    return f"input {tensor.name!r} has the shape [{sizes}]; got {list(shape)}."


def _tensor_content(tensor: TensorMeta) -> dict[str, Any]:
    content = {"name": tensor.name, "dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape)}
    return {**content, "location": "host"} if tensor.is_host else content


class _Wrong(Exception):
    """An error in a JSON text; its message says which."""


_NEEDED = ("version", "backend", "sha256", "inputs", "outputs")
_ALLOWED = {*_NEEDED, "aliased_io", "device", "module"}


def _parsed(text: str) -> EngineMeta:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"no JSON ({error})") from None
    if not isinstance(content, dict):
        raise _Wrong("no JSON object")
    version = _get(content, "version", int)
    if version > _VERSION:
        raise PlanError(
            f"the description of an engine in a program has version {version}; this trt_rt reads version "
            f"{_VERSION}. Load the program with the trt_rt that saved it, or a later one."
        )
    if version < 1:
        raise _Wrong(f"there is no version {version}")
    if set(content) - _ALLOWED:
        raise _Wrong(f"unknown fields {sorted(set(content) - _ALLOWED)}")
    sha256 = _get(content, "sha256", str)
    if re.fullmatch("[0-9a-f]{64}", sha256) is None:
        raise _Wrong("sha256 is not 64 hexadecimal digits")
    inputs = tuple(_tensor(each, _input_size) for each in _get(content, "inputs", list))
    outputs = tuple(_tensor(each, _output_size) for each in _get(content, "outputs", list))
    aliases = _get(content, "aliased_io", dict, {})
    if not set(aliases) <= {each.name for each in outputs}:
        raise _Wrong("aliased_io names an output that there is not")
    if not all(name in [each.name for each in inputs] for name in aliases.values()):
        raise _Wrong("aliased_io names an input that there is not")
    for kind, tensors in (("input", inputs), ("output", outputs)):
        if len({each.name for each in tensors}) != len(tensors):
            raise _Wrong(f"two {kind}s of one name")
    device = _get(content, "device", str, None)
    if device not in (None, "cpu", "cuda"):
        raise _Wrong(f"device is {device!r}")
    meta = EngineMeta(
        _get(content, "backend", str),
        sha256,
        inputs,
        outputs,
        aliases,
        device,
        _get(content, "module", str, None),
    )
    assert meta.output_sizes is not None  # reads every expression
    return meta


@functools.cache
def _dtypes() -> dict[str, torch.dtype]:
    found = {dtype_name(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    return {name: dtype for name, dtype in found.items() if not name.startswith(_NOT_OF_ENGINES)}


_MISSING: Any = object()


def _get(content: Mapping[str, Any], name: str, kind: type[Value], default: Any = _MISSING) -> Value:
    value = content.get(name, default)
    if value is _MISSING or (value is not default and type(value) is not kind):
        raise _Wrong(f"{name!r} is missing or no {kind.__name__}")
    result: Value = value
    return result


def _tensor(content: Any, read_size: Callable[[Any], int | str]) -> TensorMeta:
    if type(content) is not dict:
        raise _Wrong("a tensor is no JSON object")
    if set(content) - {"name", "dtype", "shape", "location"}:
        raise _Wrong("a tensor has unknown fields")
    dtype = _dtypes().get(_get(content, "dtype", str))
    if dtype is None:
        raise _Wrong(f"{content['dtype']!r} is no dtype")
    shape = _get(content, "shape", list)
    if len(shape) > _MOST_DIMENSIONS:
        raise _Wrong(f"a shape of more than {_MOST_DIMENSIONS} dimensions")
    location = _get(content, "location", str, "device")
    if location not in ("device", "host"):
        raise _Wrong(f"location is {location!r}")
    return TensorMeta(
        _get(content, "name", str), dtype, tuple(map(read_size, shape)), is_host=location == "host"
    )


def _input_size(size: Any) -> int | str:
    if (type(size) is int and 0 <= size < 2**63) or (type(size) is str and is_symbol(size)):
        checked: int | str = size
        return checked
    raise _Wrong(f"the size {size!r}")


def _output_size(size: Any) -> int | str:
    if type(size) is str and (not size.startswith("?") or is_symbol(size[1:])):
        return size
    return _input_size(size)


hide_from_dynamo(globals())
