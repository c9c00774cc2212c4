"""TensorRT's ``Refitter`` in terms of PyTorch's tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["EngineRefitter"]


class EngineRefitter:
    """Gives one engine new weights.

    Parameters
    ----------
    api : module
        The backend's.
    refitter : Refitter
        TensorRT's own, of the engine.
    dtypes : mapping
        PyTorch's dtypes by the name of TensorRT's.
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
        self._set: list[torch.Tensor] = []  # TensorRT reads their memory when it refits

    @property
    def names(self) -> list[str]:
        """Of the weights that can be changed."""
        return list(self._refitter.get_all_weights())

    def prototype(self, name: str) -> tuple[torch.dtype | None, int, str]:
        """What a weight was built of.

        Returns
        -------
        dtype : torch.dtype or None
            None if PyTorch has none for it.
        count : int
            Elements; TensorRT does not tell their shape.
        type_name : str
            TensorRT's name of the dtype.
        """
        prototype = self._refitter.get_weights_prototype(name)
        type_name = str(prototype.dtype.name)
        return self._dtypes.get(type_name), int(prototype.size), type_name

    def set(self, name: str, value: torch.Tensor) -> bool:
        """Set a contiguous tensor, on the CPU or the engine's device, as a weight; False if it is refused."""
        api = self._api
        location = api.TensorLocation.DEVICE if value.is_cuda else api.TensorLocation.HOST
        member = self._refitter.get_weights_prototype(name).dtype
        weights = api.Weights(member, value.data_ptr(), value.numel())
        self._set.append(value)
        self._take_error()
        return self._refitter.set_named_weights(name, weights, location) is True

    @property
    def missing(self) -> list[str]:
        """Names of weights that must be set too, because TensorRT has combined them with those that are."""
        return list(self._refitter.get_missing_weights())

    def refit(self) -> bool:
        """Give the engine what was set; False if TensorRT could not, and then some may have changed."""
        self._take_error()
        return self._refitter.refit_cuda_engine() is True

    def last_error(self) -> str:
        """TensorRT's last message, as the end of a sentence."""
        message = self._take_error()
        return f"TensorRT says: {message}" if message else "TensorRT logged no reason."
