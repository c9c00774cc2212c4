"""TensorRT's ``Refitter``, for weights that are PyTorch tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["EngineRefitter"]


class EngineRefitter:
    """New weights for one engine.

    Parameters
    ----------
    api : module
        The backend's Python module.
    refitter : Refitter
        TensorRT's refitter of the engine.
    dtypes : mapping
        PyTorch's dtypes, by the names of TensorRT's dtypes.
    take_error : callable
        Returns TensorRT's last error message, or "", and forgets it.
    """

    def __init__(
        self,
        api: Any,
        refitter: Any,
        dtypes: Mapping[str, torch.dtype],
        take_error: Callable[[], str],
    ) -> None:
        self._api = api
        self._refitter = refitter
        self._dtypes = dtypes
        self._take_error = take_error
        self._set: list[torch.Tensor] = []  # kept alive: TensorRT reads them in `refit`

    @property
    def names(self) -> list[str]:
        """The names of the weights that can be changed."""
        return list(self._refitter.get_all_weights())

    def prototype(self, name: str) -> tuple[torch.dtype | None, int, str]:
        """Return the dtype and size that a weight was built with.

        Returns
        -------
        dtype : torch.dtype or None
            PyTorch's dtype; None if PyTorch has no such dtype.
        count : int
            The number of elements. TensorRT does not report the shape.
        type_name : str
            TensorRT's name of the dtype.
        """
        prototype = self._refitter.get_weights_prototype(name)
        type_name = str(prototype.dtype.name)
        return self._dtypes.get(type_name), int(prototype.size), type_name

    def set(self, name: str, value: torch.Tensor) -> bool:
        """Set a weight from a contiguous tensor on the CPU or the engine's device; False if it is refused."""
        api = self._api
        location = api.TensorLocation.DEVICE if value.is_cuda else api.TensorLocation.HOST
        member = self._refitter.get_weights_prototype(name).dtype
        weights = api.Weights(member, value.data_ptr(), value.numel())
        self._set.append(value)
        self._take_error()
        return self._refitter.set_named_weights(name, weights, location) is True

    @property
    def missing(self) -> list[str]:
        """The names of weights that must be set too, because TensorRT combined them with set weights."""
        return list(self._refitter.get_missing_weights())

    def refit(self) -> bool:
        """Apply the weights that were set. False: TensorRT failed, and some weights may have changed."""
        self._take_error()
        return self._refitter.refit_cuda_engine() is True

    def last_error(self) -> str:
        """Return TensorRT's last error message as a sentence."""
        message = self._take_error()
        return f"TensorRT says: {message}" if message else "TensorRT logged no reason."
