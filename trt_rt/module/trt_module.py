"""An engine as a PyTorch module."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch

from trt_rt._core.arguments import is_symbolic
from trt_rt._core.call import BoundCall, Executor, ModuleCallBase, records_torchscript, show_call
from trt_rt._core.critical import Gate
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt.backend import Backend, RuntimeSettings
from trt_rt.engine import Engine
from trt_rt.errors import InputTypeError
from trt_rt.module.call_observer import CallListener
from trt_rt.module.calls_in_graphs import CallsInGraphs
from trt_rt.module.composition import refuse_excluded, settings_change
from trt_rt.module.copies import copy_of, deep_copy_of, pickled, replica_of
from trt_rt.module.counts import checked_count
from trt_rt.module.engine_source import is_lazy, load_engine
from trt_rt.module.executors import ModuleExecutors
from trt_rt.module.flags import checked_flag
from trt_rt.module.hooks import INSTANCE_HOOKS, hooks_of
from trt_rt.module.io_names import by_position, in_order, with_aliases
from trt_rt.module.modes import Modes
from trt_rt.module.moved_inputs import InputMover
from trt_rt.module.settings import checked_settings
from trt_rt.module.torch_tensorrt_methods import TorchTensorRTMethods

__all__ = ["PythonTorchTensorRTModule", "TRTModule", "TorchTensorRTModule"]

Outputs = torch.Tensor | tuple[torch.Tensor, ...]

# Setting any of these on an instance changes what a call does.
_CALL_ATTRIBUTES = frozenset({*INSTANCE_HOOKS, "forward", "_compiled_call_impl", "__class__"})


class TRTModule(ModuleCallBase, CallsInGraphs, TorchTensorRTMethods, torch.nn.Module):
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
        `RuntimeSettings` of TensorRT-RTX are applied. Of anything else, such as Torch-TensorRT's compilation
        settings, an attribute ``lazy_engine_init`` that is true postpones loading the engine until
        `setup_engine`, the first call, or whatever else needs it. The rest is only kept as `settings`.
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
        As for `Engine.from_bytes`: the hash of the plan, compared before a backend sees it. Not with a loaded
        engine.
    aliased_io : mapping of str to str, optional
        From outputs to the inputs in whose memory they lie, for plans that do not say so themselves
        (TensorRT's do since 10.15). Of a tuple in place of an input's name the first item counts.
    aliased_outputs : {"omit", "return"}, optional
        Whether calls return outputs that lie in an input's memory. Their values are in that input in any
        case. ``out=`` has a tensor for each output that is returned.
    move_inputs : bool, optional
        Copy a tensor that is on another device to the engine's, with a warning at the first one. Default: it
        is refused.

    Raises
    ------
    SettingError
        If a name is not in the engine, of the other direction, missing or there twice; if `aliased_io` does
        not fit the engine. Also a ValueError and a RuntimeError.
    ValueError
        If `sha256` is not a SHA-256, or comes with a loaded engine; if `aliased_outputs` is something else.
    PlanError, BackendError
        As for `Engine.from_bytes`.
    OSError
        The file cannot be read.
    ClosedError
        The engine was closed.

    Notes
    -----
    Outputs never require grad; an engine has no backward.

    Examples
    --------
    >>> module = TRTModule(engine.serialize(), device="cpu")
    >>> module(x).shape
    torch.Size([8, 1000])
    >>> module(x=x, out=torch.empty(8, 1000)).shape
    torch.Size([8, 1000])
    >>> module.configure(pre_allocated_outputs=2)
    >>> module(x).data_ptr() == module(x).data_ptr()
    False
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
        aliased_io: Mapping[str, Any] | None = None,
        aliased_outputs: Literal["omit", "return"] = "omit",
        move_inputs: bool = False,
    ) -> None:
        super().__init__()
        if aliased_outputs not in ("omit", "return"):
            raise ValueError(f"aliased_outputs={aliased_outputs!r}: 'omit' or 'return' is allowed.")
        self.settings = settings
        self.weight_name_map = weight_name_map
        self.requires_output_allocator = checked_flag("requires_output_allocator", requires_output_allocator)
        self.max_contexts = checked_count("max_contexts", max_contexts, "execution contexts")
        self.aliased_outputs = aliased_outputs
        self.move_inputs = checked_flag("move_inputs", move_inputs)
        self.name = name
        self._aliased_io = dict(aliased_io or {})
        self._binding_names = (input_binding_names, output_binding_names)
        self._engine: Engine | None = None
        self._executors: ModuleExecutors | None = None
        self._in_graphs = None
        self._setting_up = Gate()
        self._load: Callable[[], Engine] | None = partial(
            load_engine, serialized_engine, name, backend, device, sha256
        )
        if isinstance(serialized_engine, Engine) or not is_lazy(settings):
            self.setup_engine()
        else:
            self._connect_call()

    def setup_engine(self) -> None:
        """Load the engine, if ``settings.lazy_engine_init`` has postponed that. Idempotent.

        Raises
        ------
        SettingError, PlanError, BackendError, OSError, ValueError, ClosedError
            As the constructor without it.
        """
        if self._engine is None:
            self._setting_up.run(self._set_up)

    def _set_up(self) -> None:
        if self._load is None:  # another thread has set it up meanwhile
            return
        engine = self._load()
        self._inputs = in_order(engine, "input", self._binding_names[0])
        outputs = in_order(engine, "output", self._binding_names[1])
        self._outputs = with_aliases(engine, outputs, self._aliased_io)
        runtime_settings = self.settings if isinstance(self.settings, RuntimeSettings) else None
        if runtime_settings is not None:
            engine.require_runtime_settings()
        self.name = self.name or engine.name
        self._executors = ModuleExecutors(
            engine,
            self._inputs,
            self._outputs,
            Modes(output_allocator=self.requires_output_allocator, runtime_settings=runtime_settings),
            self.max_contexts,
            returns_aliases=self.aliased_outputs == "return",
            move_input=InputMover(self.name) if self.move_inputs else None,
        )
        self._connect_call()
        self._engine = engine  # another thread takes it as the sign that all is there
        self._load = None  # and with it the plan

    @property
    def engine(self) -> Engine:
        """The engine that calls run."""
        if self._engine is None:
            self.setup_engine()
            assert self._engine is not None
        return self._engine

    @property
    def executor(self) -> Executor:
        """The calling stream's: the call without a module around it; same arguments, no keywords."""
        if self._engine is None:
            self.setup_engine()
        return super().executor

    @property
    def input_binding_names(self) -> list[str]:
        """The inputs' names, in the order of a call's arguments."""
        self.setup_engine()
        return [tensor.name for tensor in self._inputs]

    @property
    def output_binding_names(self) -> list[str]:
        """The outputs' names, in the order of a call's results; also of outputs that calls do not return."""
        self.setup_engine()
        return [tensor.name for tensor in self._outputs]

    @property
    def aliased_io(self) -> dict[str, str]:
        """From outputs to the inputs in whose memory they lie."""
        self.setup_engine()
        return {
            tensor.name: tensor.aliased_input for tensor in self._outputs if tensor.aliased_input is not None
        }

    def _connect_call(self) -> None:
        is_plain = type(self).forward is _FORWARD and "forward" not in vars(self)
        executors = self._executors
        is_direct = is_plain and self._compiled_call_impl is None
        if executors is not None and executors.is_observed:
            is_direct = False  # calls in C would pass by the observer
        self._connect(None if executors is None else executors.pool, is_direct, hooks_of(self))

    def observe(self, listener: CallListener) -> None:
        """Tell a listener of all calls until `unobserve`; they take the route through `forward` meanwhile.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        self.executors.observe(listener)
        self._connect_call()

    def unobserve(self, listener: CallListener) -> None:
        """Undo `observe`, also one that was cut short. Idempotent.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        try:
            self.executors.unobserve(listener)
        finally:
            self._connect_call()

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
            Objects with ``__dlpack__`` are taken as they are. For an input without dimensions a Python number
            or a CPU tensor without dimensions will do wherever PyTorch's operators would mix it in.
        out : torch.Tensor or sequence of torch.Tensor, optional
            Where to write the outputs, in the order of `output_binding_names`: contiguous, of the exact
            shape, starting at a multiple of 256 bytes (64 on a CPU).
        **named_inputs : torch.Tensor
            Inputs by name, after the positional ones.

        Returns
        -------
        torch.Tensor or tuple of torch.Tensor
            A tensor, a tuple for several outputs, ``()`` for none; valid in the order of the stream. `out`,
            if it was given. With pre-allocated outputs, valid until the next call. Outputs that lie in an
            input's memory are not among them, unless ``aliased_outputs="return"``.

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
        if torch.compiler.is_dynamo_compiling() or records_torchscript():
            return self._put_into_graph(inputs, named_inputs, out)
        args = (
            by_position(self.engine.name, self.input_binding_names, inputs, named_inputs)
            if named_inputs
            else inputs
        )
        result: Outputs
        try:
            result = self.executor(*args) if out is None else self.executor.run_into(args, out)
        except InputTypeError:
            if not any(map(is_symbolic, args)):
                raise
            return self._put_into_graph(inputs, named_inputs, out)
        return result

    # Any, as nn.Module says, so that type checkers take the result for what a program expects of it.
    def __call__(self, /, *inputs: Any, **keywords: Any) -> Any:
        """Run the engine; see `forward`. Calls of modules go to C code, and Dynamo reads this."""
        if torch.compiler.is_dynamo_compiling():
            return torch.nn.Module.__call__(self, *inputs, **keywords)
        return super().__call__(*inputs, **keywords)

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
        args = (
            by_position(self.engine.name, self.input_binding_names, inputs, named_inputs)
            if named_inputs
            else inputs
        )
        return self.executor.bind(*args, out=out)

    def _arrange(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        return by_position(self.engine.name, self.input_binding_names, inputs, named)

    def configure(self, **settings: Any) -> None:
        """Change settings for good; the controls of `trt_rt.runtime` change them for a time.

        A setting that a context manager has changed comes back to what it was when that is left.

        Parameters
        ----------
        cuda_graphs : bool or None
            Calls replay CUDA graphs; None for what `set_cudagraphs_mode` says.
        max_graphs : int
            CUDA graphs that are kept for each stream that calls.
        pre_allocated_outputs : int or bool
            Sets of outputs that are reused in turn, for each set of input shapes; True for one, False or 0
            for fresh outputs.
        output_allocator : bool
            TensorRT allocates every output, not only those whose size depends on data.
        optimization_profile : int, "auto" or None
            The only optimization profile that calls may use; "auto" or None for the first that admits the
            inputs.
        dynamic_resources : bool
            Scratch memory is sized for the shapes in use, and shared by modules of one stream.
        runtime_settings : RuntimeSettings or None
            Settings of TensorRT-RTX; None for its own.

        Raises
        ------
        SettingError
            If a setting does not fit the engine, or excludes one that is on. Also a ValueError and a
            RuntimeError. After this and the next errors nothing has changed.
        ValueError
            If a number is out of range.
        TypeError
            If there is no such setting, or a value is of another type.
        BackendError
            If `runtime_settings` are given, and the engine's backend is not TensorRT-RTX.
        ExecutionError
            If CUDA reports that work in flight has failed.

        Examples
        --------
        >>> module.configure(cuda_graphs=True, pre_allocated_outputs=True)
        >>> module.modes.cuda_graphs
        True
        """
        settings_change.run(self._configure, checked_settings(self.engine, settings))

    def _configure(self, changes: dict[str, Any]) -> None:
        refuse_excluded(self, changes)
        self.executors.change(**changes)

    @property
    def modes(self) -> Modes:
        """The settings in force: the lasting ones, with what context managers have changed."""
        return self.executors.modes

    @property
    def executors(self) -> ModuleExecutors:
        """The executors of the module's calls, one for each stream; `configure` and `modes` are public."""
        if self._executors is None:
            self.setup_engine()
            assert self._executors is not None
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
            ``calls``; ``captures`` and ``replays`` of CUDA graphs; ``invalidated_captures``: captures that
            CUDA has ended, mostly because another thread waited for the device, so that a call had its result
            and no graph; ``rebinds``: addresses told to TensorRT;
            ``shape_changes``: calls with other shapes than the one before; ``careful_reads``: arguments that
            were copied or were no plain tensors; ``contexts``: streams with an execution context.
        """
        return self.executors.stats()

    @property
    def runtime_settings(self) -> RuntimeSettings | None:
        """The `RuntimeSettings` of TensorRT-RTX in use; None for its own. Assign others to change them.

        Raises
        ------
        BackendError
            On assignment: the engine's backend is not TensorRT-RTX.
        """
        return self.modes.runtime_settings

    @runtime_settings.setter
    def runtime_settings(self, settings: RuntimeSettings | None) -> None:
        self.configure(runtime_settings=settings)

    def extra_repr(self) -> str:
        """Return the text that ``print(module)`` shows in brackets."""
        if self._engine is None:
            return f"{self.name!r}, not loaded yet"
        inputs = ", ".join(str(tensor) for tensor in self._inputs)
        outputs = ", ".join(str(tensor) for tensor in self._outputs)
        return f"{self.engine.name!r}, ({inputs}) -> ({outputs}), backend={self.engine.backend!r}"

    def __copy__(self) -> TRTModule:
        """Return a module of its own over the same engine; its other attributes are the same objects."""
        return copy_of(self, _construct)

    def __deepcopy__(self, memo: dict[int, Any]) -> TRTModule:
        """Return a module of its own over the same engine, which is immutable."""
        return deep_copy_of(self, _construct, memo)

    def _replicate_for_data_parallel(self) -> TRTModule:
        """Return a copy for `torch.nn.parallel.replicate`, which gives replicas parameters of their own."""
        return replica_of(self, _construct)

    def __reduce__(self) -> tuple[Callable[..., TRTModule], tuple[Any, ...], dict[str, Any]]:
        """Pickled as the plan, the constructor's arguments and what users have set since."""
        return pickled(self, _construct)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over the state of a copied or pickled module; the constructor has set the rest."""
        vars(self).update(state)
        self._connect_call()


_FORWARD = TRTModule.forward  # also if somebody gives the class another one
show_call(TRTModule)

PythonTorchTensorRTModule = TRTModule
TorchTensorRTModule = TRTModule


def _construct(kind: type[TRTModule], engine: Engine | bytes, arguments: dict[str, Any]) -> TRTModule:
    """A module of a class whose own constructor may want other arguments; its state follows."""
    module = kind.__new__(kind)
    TRTModule.__init__(module, engine, **arguments)
    return module


hide_from_dynamo(globals())
