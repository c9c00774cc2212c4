"""``Refitter``: gives an engine new weights."""

from __future__ import annotations

import torch

from trt_rt._core.dlpack import tensor_from_address
from trt_rt.reference.dtypes import TENSORRT_DTYPES
from trt_rt.reference.engine import ICudaEngine
from trt_rt.reference.enums import DataType, TensorLocation
from trt_rt.reference.logger import ILogger, Reporter
from trt_rt.reference.plain_execution import plain
from trt_rt.reference.plan_weights import Weight
from trt_rt.reference.weights_array import Weights

__all__ = ["Refitter"]


class Refitter:
    """Changes the weights of an engine that was built with ``refittable=True``.

    Parameters
    ----------
    engine : ICudaEngine
        The engine; kept alive.
    logger : ILogger
        Receives the refitter's messages.

    Raises
    ------
    TypeError
        The engine cannot be refitted; an error is logged. TensorRT's bindings raise it too, because their
        factory returns nothing then.
    """

    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        self._reporter = Reporter(logger)
        if not engine.refittable:
            self._reporter.misuse("createInferRefitter", "the engine was built without refittable=True")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._engine = engine
        self._loaded = engine._loaded
        self._set: dict[str, tuple[Weights, TensorLocation]] = {}

    @property
    def logger(self) -> ILogger:
        """The logger."""
        return self._reporter.logger

    def get_all_weights(self) -> list[str]:
        """Return the names of the weights that can be changed."""
        return list(self._loaded.refittable)

    def get_missing_weights(self) -> list[str]:
        """Return the names of weights that must be set too: none, because the backend combines no weights."""
        return []

    def get_weights_prototype(self, weights_name: str) -> Weights:
        """Return the type and the number of elements of a weight; -1 elements for an unknown name."""
        weight = self._find(weights_name)
        if weight is None:
            return Weights(DataType.FLOAT, 0, -1)
        return Weights(TENSORRT_DTYPES[weight.dtype], 0, torch.Size(weight.shape).numel())

    def get_named_weights(self, weights_name: str) -> Weights:
        """Return the weights that were set; if none were, log an error and return an empty array."""
        if weights_name in self._set:
            return self._set[weights_name][0]
        self._reporter.misuse("IRefitter::getNamedWeights", f"{weights_name!r} was not set")
        return Weights()

    def set_named_weights(
        self, name: str, weights: Weights, location: TensorLocation = TensorLocation.HOST
    ) -> bool:
        """Set new values for a weight; they are read when the engine is refitted.

        Parameters
        ----------
        name : str
            Its key in the state dict of the module that was built.
        weights : Weights
            The values: contiguous, in the order of PyTorch's dimensions.
        location : TensorLocation
                The memory that holds them: the host's, or that of the engine's device.

        Returns
        -------
        bool
            False, and an error logged, if there is no such weight, or another type or number of elements.
        """
        prototype = self.get_weights_prototype(name)
        if prototype.size < 0:
            reason = f"there is no weight {name!r} to change"
        elif (weights.dtype, weights.size) != (prototype.dtype, prototype.size):
            reason = (
                f"{name!r} has {prototype.size} elements of {prototype.dtype.name}, "
                f"not {weights.size} of {weights.dtype.name}"
            )
        else:
            self._set[name] = weights, location
            return True
        self._reporter.misuse("IRefitter::setNamedWeights", reason)
        return False

    def unset_named_weights(self, weights_name: str) -> bool:
        """Forget values that were set; False if there are none."""
        return self._set.pop(weights_name, None) is not None

    @plain
    def refit_cuda_engine(self) -> bool:
        """Give the engine the values that were set. Contexts stay valid, and the values stay set.

        Returns
        -------
        bool
            False, and an error is logged, if they could not all be copied.
        """
        loaded = self._loaded
        numbers = loaded.refittable
        try:
            loaded.refit({numbers[name]: self._values(name) for name in self._set})
        except (MemoryError, RuntimeError) as error:
            self._reporter.failure("IRefitter::refitCudaEngine", f"{type(error).__name__}: {error}")
            return False
        return True

    def _find(self, name: str) -> Weight | None:
        number = self._loaded.refittable.get(name)
        return None if number is None else self._loaded.plan.weights[number]

    def _values(self, name: str) -> torch.Tensor:
        weights, location = self._set[name]
        weight = self._loaded.plan.weights[self._loaded.refittable[name]]
        device = torch.device("cpu") if location is TensorLocation.HOST else self._loaded.device
        return tensor_from_address(weights._address, weight.shape, weight.dtype, device)
