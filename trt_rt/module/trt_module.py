"""An engine as a PyTorch module."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch

from trt_rt._core.call import BoundCall, ModuleCallBase
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt.backend import Backend, RuntimeSettings
from trt_rt.engine import Engine
from trt_rt.errors import InputValueError
from trt_rt.module.counts import checked_count
from trt_rt.module.executors import ModuleExecutors
from trt_rt.module.hooks import INSTANCE_HOOKS, hooks_of
from trt_rt.module.modes import Modes

__all__ = ["PythonTorchTensorRTModule", "TRTModule"]

Outputs = torch.Tensor | tuple[torch.Tensor, ...]

# Made anew by the constructor of a copy; all else in a module's dict is copied with it.
_SET_BY_CONSTRUCTOR = frozenset(
    {
        "engine",
        "name",
        "settings",
        "weight_name_map",
        "requires_output_allocator",
        "input_binding_names",
        "output_binding_names",
        "max_contexts",
        "_inputs",
        "_outputs",
        "_executors",
        "_compiled_call_impl",
    }
)
# Setting any of these on an instance changes what a call does.
_CALL_ATTRIBUTES = frozenset({*INSTANCE_HOOKS, "forward", "_compiled_call_impl", "__class__"})


class TRTModule(ModuleCallBase, torch.nn.Module):
    """A TensorRT engine that is called like any other module.

    Parameters
    ----------
    serialized_engine : bytes-like, path-like or Engine
        A plan, a file that holds one, or a loaded engine (which other modules may share).
    input_binding_names, output_binding_names : sequence of str, optional
        The engine's inputs and outputs in the order of a call's arguments and results. Default: the engine's
        order.
    name : str, optional
        The name in messages. Default: the engine's name.
    settings : RuntimeSettings or object, optional
        `RuntimeSettings` of TensorRT-RTX are applied. Any other object is only kept as `settings`, because
        Torch-TensorRT passes its compilation settings.
    weight_name_map : mapping, optional
        The map of weights for `refit`, kept as `weight_name_map`.
    requires_output_allocator : bool, optional
        Whether TensorRT allocates every output. It always allocates outputs whose size depends on data.
    backend : str or Backend, optional
        As for `Engine.from_bytes`.
    device : torch.device, str or int, optional
        As for `Engine.from_bytes`.
    max_contexts : int, optional
        The number of streams that may have an execution context of their own, which is made at the stream's
        first call. A further stream takes over the context used least recently, and waits for its work.
    sha256 : str, optional
        As for `Engine.from_bytes`: the hash of the plan, compared before a backend sees the plan. It is not
        allowed with a loaded engine.

    Attributes
    ----------
    engine : Engine
        The engine that calls run.
    executor : Executor
        The executor of the caller's stream. Calling it is the module's call without the module; it takes the
        same arguments, but no keywords.

    Raises
    ------
    ValueError
        A binding name is not in the engine, has the other direction, is missing or is given twice. `sha256`
        is not a SHA-256, or is given with a loaded engine.
    PlanError, BackendError
        As for `Engine.from_bytes`.
    OSError
        The file cannot be read.
    ClosedError
        The engine was closed.

    Notes
    -----
    Outputs never require grad, because an engine has no backward.

    Examples
    --------
    >>> plan = build(torch.nn.Linear(4, 2), (torch.zeros(3, 4),), backend="reference")
    >>> module = TRTModule(plan)  # or TRTModule("model.plan")
    >>> module(torch.randn(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        serialized_engine: bytes | bytearray | memoryview | str | os.PathLike[str] | Engine,
        input_binding_names: Sequence[str] | None = None,
        output_binding_names: Sequence[str] | None = None,
        *,
        name: str = "",
        settings: Any = None,
        weight_name_map: Mapping[str, Any] | None = None,
        requires_output_allocator: bool = False,
        backend: str | Backend = "auto",
        device: torch.device | str | int | None = None,
        max_contexts: int = 8,
        sha256: str | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.weight_name_map = weight_name_map
        self.requires_output_allocator = requires_output_allocator
        self.engine = _as_engine(serialized_engine, name, backend, device, sha256)
        self.name = name or self.engine.name
        self._inputs = _in_order(self.engine, "input", input_binding_names)
        self._outputs = _in_order(self.engine, "output", output_binding_names)
        self.input_binding_names = [tensor.name for tensor in self._inputs]
        self.output_binding_names = [tensor.name for tensor in self._outputs]
        self.max_contexts = checked_count("max_contexts", max_contexts, "execution contexts")
        runtime_settings = settings if isinstance(settings, RuntimeSettings) else None
        if runtime_settings is not None:
            self.engine.require_runtime_settings()
        modes = Modes(output_allocator=requires_output_allocator, runtime_settings=runtime_settings)
        self._executors = ModuleExecutors(self.engine, self._inputs, self._outputs, modes, self.max_contexts)
        self._connect_call()

    def _connect_call(self) -> None:
        is_plain = type(self).forward is TRTModule.forward and "forward" not in vars(self)
        self._connect(self._executors.pool, is_plain and self._compiled_call_impl is None, hooks_of(self))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _CALL_ATTRIBUTES and "_executors" in vars(self):
            self._connect_call()

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name in _CALL_ATTRIBUTES and "_executors" in vars(self):
            self._connect_call()

    def forward(self, /, *inputs: Any, out: Any = None, **named_inputs: Any) -> Outputs:
        """Run the engine on the caller's current stream.

        Parameters
        ----------
        *inputs : torch.Tensor
            In the order of `input_binding_names`, on the engine's device (shape tensors: on the CPU), with
            the engine's dtypes, within an optimization profile. Non-contiguous or unaligned ones are copied.
            Objects with ``__dlpack__`` are taken as they are.
        out : torch.Tensor or sequence of torch.Tensor, optional
            Where to write the outputs, in the order of `output_binding_names`: contiguous, of the exact
            shape, starting at a multiple of 256 bytes (64 on a CPU).
        **named_inputs : torch.Tensor
            Inputs by name, after the positional ones.

        Returns
        -------
        torch.Tensor or tuple of torch.Tensor
            A tensor, a tuple for several outputs, ``()`` for none; valid in the order of the stream. `out`,
            if it was given. With pre-allocated outputs, valid until the next call.

        Raises
        ------
        InputError
            Also a ValueError or a TypeError: names the tensor, what came and what is allowed. Nothing is
            cast or moved silently.
        ExecutionError
            If TensorRT or CUDA refuses, with TensorRT's last message.
        torch.OutOfMemoryError, MemoryError
            If there is no memory, on the GPU or the CPU, for an output or for the copy of an input.
        ClosedError
            If the engine was closed.
        """
        args = self._arrange(inputs, named_inputs) if named_inputs else inputs
        result: Outputs = self.executor(*args) if out is None else self.executor.run_into(args, out)
        return result

    def bind(self, /, *inputs: Any, out: Any = None, **named_inputs: Any) -> BoundCall:
        """Bind inputs and outputs once, for a loop that calls with the same tensors again and again.

        Parameters
        ----------
        *inputs, **named_inputs : torch.Tensor
            As for a call, but contiguous and aligned. Write new data into them in place. A shape tensor's
            values are read now.
        out : torch.Tensor or sequence of torch.Tensor, optional
            As for a call. Default: new ones, which every call overwrites.

        Returns
        -------
        BoundCall
            ``bound()`` enqueues on the caller's current stream and returns the outputs.

        Raises
        ------
        InputError
            As for a call; also if an input would have to be copied.
        ExecutionError, ClosedError, torch.OutOfMemoryError, MemoryError
            As for a call.
        """
        args = self._arrange(inputs, named_inputs) if named_inputs else inputs
        return self.executor.bind(*args, out=out)

    def set_pre_allocated_outputs(self, enable: bool, *, buffers: int = 1) -> None:
        """Reuse output memory: a result is then valid until the next call of the stream (CPU: thread).

        Parameters
        ----------
        enable : bool
            False for fresh outputs, the default.
        buffers : int, optional
            How many sets of outputs are used in turn, for a loop that holds several results: a result is then
            valid until `buffers` calls later.

        Raises
        ------
        ValueError
            If `enable`, and `buffers` is less than 1 or more than 65,536.
        TypeError
            If `enable`, and `buffers` is no integer. Nothing is changed in either case.

        Notes
        -----
        Outputs that TensorRT allocates, and those that lie in an input's memory, are not affected.
        """
        count = checked_count("buffers", buffers, "sets of outputs") if enable else 0
        # Off first, so that results which callers hold keep their memory even if the mode was on already.
        self._executors.change(pre_allocated_outputs=0)
        if count:
            self._executors.change(pre_allocated_outputs=count)

    @property
    def executors(self) -> ModuleExecutors:
        """The module's executors, one for each stream; `trt_rt.runtime` switches their modes."""
        return self._executors

    @property
    def graph_inputs(self) -> tuple[torch.Tensor, ...] | None:
        """Static inputs for the shapes of the last call on the current stream; None before there was one.

        With CUDA graphs on, write new data into these and call the module with them: nothing is copied. A
        call with other tensors may overwrite them. A shape tensor's is a copy of its values.
        """
        return self.executor.graph_inputs

    def stats(self) -> dict[str, int]:
        """Return counters of what has happened since the module was made.

        Returns
        -------
        dict
            ``calls``; ``captures`` and ``replays`` of CUDA graphs; ``rebinds``: addresses told to TensorRT;
            ``shape_changes``: calls with other shapes than the one before; ``careful_reads``: arguments that
            were copied or were no plain tensors; ``contexts``: streams with an execution context.
        """
        return self._executors.counts()

    @property
    def runtime_settings(self) -> RuntimeSettings | None:
        """The `RuntimeSettings` of TensorRT-RTX in use; None for its own. Assign others to change them.

        Raises
        ------
        BackendError
            On assignment: the engine's backend is not TensorRT-RTX.
        """
        return self._executors.modes.runtime_settings

    @runtime_settings.setter
    def runtime_settings(self, settings: RuntimeSettings | None) -> None:
        if settings is not None:
            self.engine.require_runtime_settings()
        self._executors.change(runtime_settings=settings)

    def extra_repr(self) -> str:
        """Return the text that ``print(module)`` shows in brackets."""
        inputs = ", ".join(str(tensor) for tensor in self._inputs)
        outputs = ", ".join(str(tensor) for tensor in self._outputs)
        return f"{self.engine.name!r}, ({inputs}) -> ({outputs}), backend={self.engine.backend!r}"

    def __copy__(self) -> TRTModule:
        """Return a module of its own over the same engine; its other attributes are the same objects."""
        copy = _construct(type(self), self.engine, self._arguments())
        copy.__setstate__(self._own_state())
        return copy

    def _replicate_for_data_parallel(self) -> TRTModule:
        """Return a copy for `torch.nn.parallel.replicate`, which gives replicas parameters of their own."""
        replica = self.__copy__()
        replica._parameters = {}
        replica._buffers = self._buffers.copy()
        replica._modules = self._modules.copy()
        replica._is_replica = True
        return replica

    def __deepcopy__(self, memo: dict[int, Any]) -> TRTModule:
        """A module of its own over the same engine, which is immutable."""
        copy = _construct(type(self), self.engine, self._arguments())
        memo[id(self)] = copy
        copy.__setstate__(deepcopy(self._own_state(), memo))
        return copy

    def __reduce__(self) -> tuple[Callable[..., TRTModule], tuple[Any, ...], dict[str, Any]]:
        """Pickled as the plan, the constructor's arguments and what users have set since."""
        arguments = {**self._arguments(), "backend": self.engine.backend, "device": str(self.engine.device)}
        return _construct, (type(self), self.engine.serialize(), arguments), self._own_state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `_own_state` gave; the constructor has set the rest."""
        vars(self).update(state)
        self._connect_call()

    def _own_state(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _SET_BY_CONSTRUCTOR}

    def _arguments(self) -> dict[str, Any]:
        return {
            "input_binding_names": self.input_binding_names,
            "output_binding_names": self.output_binding_names,
            "name": self.name,
            "settings": self.settings,
            "weight_name_map": self.weight_name_map,
            "requires_output_allocator": self.requires_output_allocator,
            "max_contexts": self.max_contexts,
        }

    def _arrange(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        expected = self.input_binding_names[len(inputs) :]
        unknown = sorted(set(named) - set(expected))
        missing = [name for name in expected if name not in named]
        if unknown or missing:
            problem = f"unexpected {unknown}" if unknown else f"missing {missing}"
            raise InputValueError(
                f"engine {self.engine.name!r} takes the inputs {self.input_binding_names}, of which "
                f"{len(inputs)} came by position; by name: {problem}."
            )
        return (*inputs, *(named[name] for name in expected))


PythonTorchTensorRTModule = TRTModule


def _construct(kind: type[TRTModule], engine: Engine | bytes, arguments: dict[str, Any]) -> TRTModule:
    """A module of a class whose own constructor may want other arguments; its state follows."""
    module = kind.__new__(kind)
    TRTModule.__init__(module, engine, **arguments)
    return module


def _as_engine(
    source: bytes | bytearray | memoryview | str | os.PathLike[str] | Engine,
    name: str,
    backend: str | Backend,
    device: torch.device | str | int | None,
    sha256: str | None,
) -> Engine:
    if isinstance(source, Engine):
        if sha256 is not None:
            raise ValueError(
                f"sha256= is compared with a plan, and engine {source.name!r} is loaded already. Give it to "
                "Engine.load or Engine.from_bytes."
            )
        return source
    if isinstance(source, (str, os.PathLike)):
        return Engine.load(source, backend=backend, device=device, name=name, sha256=sha256)
    return Engine.from_bytes(source, backend=backend, device=device, name=name, sha256=sha256)


def _in_order(engine: Engine, mode: str, names: Sequence[str] | None) -> tuple[IOTensor, ...]:
    available = {tensor.name: tensor for tensor in (engine.inputs if mode == "input" else engine.outputs)}
    if names is None:
        return tuple(available.values())
    for wanted in names:
        if wanted not in available:
            other = engine.outputs if mode == "input" else engine.inputs
            fact = (
                f"which is an {other[0].mode}"
                if wanted in {t.name for t in other}
                else "which it does not have"
            )
            raise ValueError(
                f"{mode}_binding_names names {wanted!r}, {fact}: engine {engine.name!r} has the {mode}s "
                f"{list(available)}."
            )
    if sorted(names) != sorted(available):
        raise ValueError(
            f"{mode}_binding_names {list(names)} must name each of the {mode}s of engine {engine.name!r} "
            f"once: {list(available)}."
        )
    return tuple(available[wanted] for wanted in names)


hide_from_dynamo(globals())
