"""PyTorch's table of ONNX functions, made once for all exports of a process.

torch.onnx builds the table of some 500 functions anew for every export, which takes longer than the export of
a small network.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from trt_rt.compiler.onnx_shortcuts import shortcuts

__all__ = ["decompositions_for_onnx", "has_onnx_function", "kept_registry", "onnx_registry"]

_lock = threading.RLock()
_registries: dict[Any, Any] = {}


@contextmanager
def kept_registry(*, decompose: bool = True) -> Iterator[None]:
    """Let torch.onnx use the table that an earlier export has made, while the context lasts.

    Exports of other threads wait: torch.onnx keeps the state of an export in globals. Where a PyTorch builds
    its table in another way, nothing is changed.

    Parameters
    ----------
    decompose : bool
        Whether torch.onnx decomposes operators; without need that only takes time.
    """
    try:
        from torch.onnx._internal.exporter import _fx_passes
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        make = ONNXRegistry.from_torchlib
        decomposed = _fx_passes.decompose_with_registry
    except (ImportError, AttributeError):
        yield
        return

    def from_torchlib(*args: Any, **kwargs: Any) -> Any:
        key = (args, tuple(sorted(kwargs.items())))
        if key not in _registries:
            with _without_torchvision_notes():
                _registries[key] = make(*args, **kwargs)
        return _registries[key]

    def as_it_is(program: Any, registry: Any) -> Any:
        return program

    with (
        _lock,
        shortcuts(),
        mock.patch.object(ONNXRegistry, "from_torchlib", staticmethod(from_torchlib)),
        mock.patch.object(_fx_passes, "decompose_with_registry", decomposed if decompose else as_it_is),
    ):
        yield


@functools.cache
def onnx_registry() -> Any | None:
    """Return the table that ``torch.onnx.export`` uses by default; None where this PyTorch has none."""
    try:
        from torch.onnx._constants import ONNX_DEFAULT_OPSET
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        with kept_registry():
            return ONNXRegistry.from_torchlib(opset_version=ONNX_DEFAULT_OPSET)
    except (ImportError, AttributeError):
        return None


def has_onnx_function(target: Any) -> bool:
    """Whether torch.onnx expresses the target of a graph's node as it is, without decomposing it first."""
    registry = onnx_registry()
    if registry is None:
        return False
    # What is no operator picks a result, or computes with sizes.
    return not isinstance(target, torch._ops.OpOverload) or bool(registry.is_registered(target))


@functools.cache
def decompositions_for_onnx() -> dict[Any, Callable[..., Any]]:
    """Return the decompositions that torch.onnx applies; empty where this PyTorch does not tell."""
    try:
        from torch.onnx._internal.exporter import _decomp

        registry: Any = onnx_registry()
        registered = set(_decomp.get_onnx_implemented_overloads(registry))
        table: dict[Any, Callable[..., Any]] = _decomp.create_onnx_friendly_decomposition_table(registered)
    except (ImportError, AttributeError):
        return {}
    return table


@contextmanager
def _without_torchvision_notes() -> Iterator[None]:
    """Drop the warnings that PyTorch logs for each operator of a torchvision that is not installed."""
    registration_log = logging.getLogger("torch.onnx._internal.exporter._registration")

    def says_something_else(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    registration_log.addFilter(says_something_else)
    try:
        yield
    finally:
        registration_log.removeFilter(says_something_else)
