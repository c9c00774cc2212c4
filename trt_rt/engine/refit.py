"""The refit of engines with new weights: of one engine, or of several, which all change or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch

from trt_rt._core.critical import complete, for_each
from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt.engine.engine import Engine
from trt_rt.engine.placement import current_device
from trt_rt.errors import ExecutionError, InputTypeError, InputValueError, PlanError

__all__ = ["EngineRefit", "apply_refits"]

# Of Torch-TensorRT: weights that it computed while it built the engine.
_CONSTANTS = "constant_mapping"


class EngineRefit:
    """New weights for one engine.

    Parameters
    ----------
    engine : Engine
        The engine that changes.

    Raises
    ------
    ClosedError
        If the engine was closed.
    BackendError
        If it was not built to be refitted, or TensorRT cannot.

    Attributes
    ----------
    refitter : EngineRefitter
        TensorRT's refitter of the engine.
    missing : list of str
        The weights without a new value.
    used : set of str
        The keys of the state dict whose values are used.
    count : int
        The number of weights that change.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with current_device(engine.device):
            self.refitter = engine.handle.backend.refitter(engine.handle.engine, engine.name)
        self.missing: list[str] = []
        self.used: set[str] = set()
        self.count = 0

    def look_up(self, name_map: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]) -> None:
        """Find and check the new value of every weight.

        Raises
        ------
        InputError
            If a value does not fit, or TensorRT needs further weights with these.
        """
        constants = name_map.get(_CONSTANTS, {})
        for name in self.refitter.names:
            key = self._key(name, name_map)
            if key in state_dict:
                self.used.add(key)
                self._set(name, f"state_dict[{key!r}]", state_dict[key])
            elif name in constants:
                self._set(
                    name, f"weight_name_map[{_CONSTANTS!r}][{name!r}]", torch.as_tensor(constants[name])
                )
            else:
                self.missing.append(name)
        needed = self.refitter.missing if self.count else []
        if needed:
            raise InputValueError(
                f"engine {self.engine.name!r} has merged weights that are in the state dict with {needed}, "
                "so these must be in it too."
            )

    def make(self) -> None:
        """Give the engine its new weights. It must have no contexts.

        Raises
        ------
        ExecutionError
            If TensorRT cannot refit the engine.
        """
        device = self.engine.device
        on_cuda = device.type == "cuda"
        if on_cuda:
            # TensorRT reads weights on the device without waiting for the stream that writes them.
            torch.cuda.current_stream(device).synchronize()
        with current_device(device):
            succeeded = self.refitter.refit()
        if not succeeded:
            raise ExecutionError(
                f"engine {self.engine.name!r} could not be refitted; it has the weights that it had. "
                f"{self.refitter.last_error()}"
            )

    def _key(self, name: str, name_map: Mapping[str, Any]) -> str:
        entry = name_map.get(name, name)
        key = entry[0] if isinstance(entry, (tuple, list)) and len(entry) == 2 else entry
        if not isinstance(key, str):
            raise InputTypeError(
                f"weight_name_map has {entry!r} for weight {name!r} of engine {self.engine.name!r}, where a "
                "key of the state dict is needed, or a pair of a key and a dtype. Compute a weight that is "
                f"made of several, take it out of the map, and put it into the state dict as {name!r}."
            )
        return key

    def _set(self, name: str, source: str, value: Any) -> None:
        with plain_pytorch():  # a FakeTensorMode around the refit would make copies without memory
            value = self._checked(name, source, value)
            on_engine = value.device == self.engine.device
            value = value.contiguous() if on_engine else value.cpu().contiguous()
        if not self.refitter.set(name, value):
            raise InputValueError(
                f"{source} was refused for weight {name!r} of engine {self.engine.name!r}. "
                f"{self.refitter.last_error()}"
            )
        self.count += 1

    def _checked(self, name: str, source: str, value: Any) -> torch.Tensor:
        if not isinstance(value, torch.Tensor):
            raise InputTypeError(
                f"{source} is {type(value).__name__}, and weight {name!r} needs a torch.Tensor."
            )
        is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor(value)
        value = value if is_wrapped else value.detach()
        wanted, count, type_name = self.refitter.prototype(name)
        what = f"weight {name!r} of engine {self.engine.name!r}"
        if (
            is_wrapped
            or value.is_meta
            or value.layout is not torch.strided
            or type(value) is not torch.Tensor
        ):
            raise InputTypeError(
                f"{source} is {type(value).__name__} on {value.device} of layout {value.layout}; {what} "
                "needs an ordinary dense tensor that has values."
            )
        if value.dtype != wanted:
            allowed = f"{wanted}: convert it with .to({wanted})" if wanted else f"{type_name}: nothing fits"
            raise InputTypeError(f"{source} is {value.dtype}, and {what} is {allowed}.")
        if value.numel() != count:
            raise InputValueError(
                f"{source} has {value.numel()} elements, its shape is {list(value.shape)}, and {what} has "
                f"{count}."
            )
        if value.untyped_storage().nbytes() < _needed_bytes(value):
            raise InputValueError(
                f"{source} is a tensor whose memory was freed or made smaller, so {what} cannot be read from "
                "it. Pass a tensor that has its values."
            )
        return value.resolve_neg()  # TensorRT reads memory, where a negative view has the other sign


def _needed_bytes(tensor: torch.Tensor) -> int:
    """The bytes from the beginning of a tensor's storage to the end of its last element."""
    if tensor.numel() == 0:
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return int(tensor.storage_offset() + last + 1) * tensor.element_size()


def apply_refits(refits: Iterable[EngineRefit]) -> None:
    """Give all engines their new weights, or none.

    Engines change one after the other. A thread that blocked the calls of two engines at once could wait
    forever for a thread that blocks them in another order.

    Parameters
    ----------
    refits : iterable of EngineRefit
        One refit for each engine, after `EngineRefit.look_up`.

    Raises
    ------
    ExecutionError
        If TensorRT cannot refit an engine. Every engine has its old weights then.
    """
    plans: dict[Engine, bytes] = {}
    try:
        for refit in refits:
            refit.engine.run_without_contexts(partial(_apply_one, refit, plans))
    except BaseException:
        complete(_go_back, plans)
        raise


def _apply_one(refit: EngineRefit, plans: dict[Engine, bytes], tensorrt_engine: Any) -> None:
    """Change one engine, or leave it unchanged. Its old plan is put into `plans` before the change."""
    plan = refit.engine.serialize()
    plans[refit.engine] = plan
    try:
        refit.make()
    except BaseException:
        try:
            complete(_restore, refit.engine, plan)
        finally:
            plans.pop(refit.engine, None)
        raise


def _go_back(plans: dict[Engine, bytes]) -> None:
    for_each(partial(_go_back_one, plans), plans)


def _go_back_one(plans: dict[Engine, bytes], engine: Engine) -> None:
    engine.run_without_contexts(lambda _: _restore(engine, plans[engine]))
    plans.pop(engine, None)


def _restore(engine: Engine, plan: bytes) -> None:
    try:
        engine.handle.reload(plan)
    except PlanError as error:
        engine.handle.close()  # nobody knows what it holds
        raise ExecutionError(
            f"a refit failed half-way, and engine {engine.name!r} could not go back to the weights that it "
            f"had, so it was closed; load it again. {error}"
        ) from error
