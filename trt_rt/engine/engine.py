"""An engine: a plan that a backend has loaded onto a device."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch

from trt_rt._core.call import Executor
from trt_rt._core.critical import complete, when_free
from trt_rt._core.io_tensor import IOTensor
from trt_rt.backend import Backend, choose_backend
from trt_rt.backend.engine_refitter import EngineRefitter
from trt_rt.backend.output_allocator import output_allocator_class
from trt_rt.backend.registry import is_registered
from trt_rt.engine.context_users import ContextUsers
from trt_rt.engine.contexts import ContextFactory, ContextSettings
from trt_rt.engine.handle import EngineHandle
from trt_rt.engine.output_shapes import OutputShape, OutputShapes
from trt_rt.engine.placement import current_device, resolve_device
from trt_rt.engine.plan_hash import check_sha256
from trt_rt.errors import ExecutionError, PlanError

__all__ = ["Engine"]

Result = TypeVar("Result")


class Engine:
    """A plan that a backend has loaded; made by `from_bytes` or `load`.

    An engine owns the weights on its device. All modules over it share them, and each module has execution
    contexts of its own. Closing the engine, also by leaving ``with``, closes every module over it.

    Examples
    --------
    >>> plan = build(torch.nn.Linear(4, 2), (torch.zeros(3, 4),), backend="reference")
    >>> with Engine.from_bytes(plan) as engine:  # or Engine.load("model.plan")
    ...     TRTModule(engine)(torch.randn(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        plan: Any,
        backend: Backend,
        device: torch.device,
        name: str,
        *,
        engine_host_code_allowed: bool = False,
    ) -> None:
        self._name = name
        self._backend = backend
        self._device = device
        self._process = os.getpid()
        self._users = ContextUsers()
        self._data_dependent_outputs: tuple[str, ...] | None = None
        with current_device(device):
            runtime = backend.runtime()
            if engine_host_code_allowed:
                runtime.engine_host_code_allowed = True
            engine = backend.deserialize(runtime, plan, name)
        self._handle = EngineHandle(backend, runtime, engine, name)
        self._io = backend.io_tensors(engine)
        self._output_shapes = OutputShapes(
            self.new_context_factory(), device, self.inputs, self.outputs, name
        )
        self._users.add(self._output_shapes)

    @classmethod
    def from_bytes(
        cls,
        plan: bytes | bytearray | memoryview | mmap.mmap,
        *,
        backend: str | Backend = "auto",
        device: torch.device | str | int | None = None,
        name: str = "",
        engine_host_code_allowed: bool = False,
        sha256: str | None = None,
    ) -> Engine:
        """Load a plan.

        Parameters
        ----------
        plan : bytes-like
            A serialized engine. It is not needed after this function returns.
        backend : str or Backend, optional
            "auto" reads the plan's first bytes; see `trt_rt.backends`. A named backend gets a plan of an
            unknown kind and decides itself.
        device : torch.device, str or int, optional
            The device that runs the engine. Default: the current CUDA device, or for a plan of the reference
            backend the device that it was built for.
        name : str, optional
            The name in messages. Default: "engine".
        engine_host_code_allowed : bool, optional
            Whether the plan may bring code that runs in this process, as version-compatible plans do. Allow
            this only for plans that you trust.
        sha256 : str, optional
            The SHA-256 of the whole plan, in hexadecimal. It is compared before a backend sees the plan,
            because TensorRT's plans have no checksum and a damaged plan can end the process.

        Returns
        -------
        Engine

        Raises
        ------
        PlanError
            The plan is empty, has a kind or version that the backend does not run, is refused by the backend,
            or does not match `sha256`.
        BackendError
            The backend is missing, or cannot run on the device.
        ValueError
            `sha256` is not 64 hexadecimal digits.
        """
        name = name or "engine"
        if sha256 is not None:
            plan = bytes(plan)  # other memory could change between the comparison and TensorRT's reading
            check_sha256(plan, sha256, name)
        view = memoryview(plan).cast("B")
        chosen = choose_backend(view, backend, name)
        built_for = chosen.plan_device(view)
        resolved = resolve_device(built_for if device is None else device, chosen)
        chosen.require(resolved)
        if built_for not in (None, resolved.type):
            raise PlanError(
                f"engine {name!r} was built for device={built_for!r} and cannot run on {resolved}. Build "
                f"it with device={resolved.type!r}, or leave device= out."
            )
        return cls(view, chosen, resolved, name, engine_host_code_allowed=engine_host_code_allowed)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backend: str | Backend = "auto",
        device: torch.device | str | int | None = None,
        name: str = "",
        engine_host_code_allowed: bool = False,
        sha256: str | None = None,
    ) -> Engine:
        """Load a plan from a file, which is mapped into memory and not copied unless `sha256` is given.

        Parameters
        ----------
        path : path-like
            A file with a plan and nothing else.
        backend, device, name, engine_host_code_allowed, sha256
            As for `from_bytes`; the name's default is the file's.

        Returns
        -------
        Engine

        Raises
        ------
        OSError
            If the file cannot be read: FileNotFoundError, PermissionError, IsADirectoryError.
        PlanError, BackendError, ValueError
            As for `from_bytes`.
        """
        path = Path(path)
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise PlanError(f"{path} is empty. Check that the file was written completely.")
            # Unmapped when nothing refers to it any more; closing it would fail while an exception does.
            plan = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls.from_bytes(
            plan,
            backend=backend,
            device=device,
            name=name or path.name,
            engine_host_code_allowed=engine_host_code_allowed,
            sha256=sha256,
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"on {self.device}"
        return f"<Engine {self._name!r} {self._backend.name} {state}>"

    def __enter__(self) -> Engine:
        self._open_engine()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The engine's name in messages."""
        return self._name

    @property
    def inputs(self) -> tuple[IOTensor, ...]:
        """The engine's inputs, in its order."""
        return tuple(tensor for tensor in self._io if tensor.mode == "input")

    @property
    def outputs(self) -> tuple[IOTensor, ...]:
        """The engine's outputs, in its order."""
        return tuple(tensor for tensor in self._io if tensor.mode == "output")

    @property
    def backend(self) -> str | Backend:
        """The backend that runs it, as ``backend=`` takes it: a name, or a `Backend` of one's own."""
        return self._backend.name if is_registered(self._backend) else self._backend

    @property
    def api(self) -> Any:
        """The backend's Python module, which has TensorRT's API."""
        return self._backend.api

    @property
    def tensorrt_version(self) -> str:
        """The version of the engine's backend."""
        return self._backend.version

    @property
    def device(self) -> torch.device:
        """The device of the engine's weights and tensors."""
        return self._device

    @property
    def num_optimization_profiles(self) -> int:
        """The number of optimization profiles.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        return int(self._open_engine().num_optimization_profiles)

    @property
    def streamable_weights_size(self) -> int:
        """The bytes of weights that can stay in host memory; 0 without support for weight streaming.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        return int(self._open_engine().streamable_weights_size)

    @property
    def weight_streaming_budget(self) -> int:
        """The bytes of streamable weights that stay on the device; the others are copied in every call.

        Set it with `trt_rt.runtime.weight_streaming`.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        return int(self._open_engine().weight_streaming_budget_v2)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._handle.closed

    def output_shapes(
        self,
        input_shapes: Mapping[str, Sequence[int]],
        shape_tensor_values: Mapping[str, Sequence[int]] | None = None,
    ) -> tuple[OutputShape, ...]:
        """Return the output shapes that follow from input shapes, without running the engine.

        Parameters
        ----------
        input_shapes : mapping of str to sequence of int
            The shape of every input, by name. A shape tensor may be left out: its shape follows from its
            values.
        shape_tensor_values : mapping of str to sequence of int, optional
            The values of every shape tensor, by name, in row-major order. Not needed without shape tensors.

        Returns
        -------
        tuple of tuple of (int or None)
            One shape for each of `outputs`, in their order. None stands for a size that depends on data.

        Raises
        ------
        InputError
            If a shape or a value is missing, belongs to no input, or is one that a call would refuse: another
            rank, a size that differs from a fixed one, or sizes that no optimization profile admits. The
            message names the input, what came and what is allowed.
        ClosedError
            If the engine was closed.
        BackendError
            If there is no memory for an execution context.
        ExecutionError
            If TensorRT cannot infer the shapes.

        Notes
        -----
        Safe to call from several threads. The first question creates an execution context without scratch
        memory, which the engine keeps for later questions.

        Examples
        --------
        >>> engine.output_shapes({"x": (8, 3, 224, 224)})
        ((8, 1000),)
        """
        self._open_engine()
        return self._output_shapes.of(input_shapes, shape_tensor_values)

    @property
    def data_dependent_outputs(self) -> tuple[str, ...]:
        """Names of the outputs whose size is known only after a run.

        Found with the optimal inputs of the first optimization profile. An output whose size depends on data
        for other inputs only is not among them; a call finds it.

        Raises
        ------
        ClosedError
            If the engine was closed.
        BackendError
            If there is no memory for an execution context.
        """
        self._open_engine()
        if self._data_dependent_outputs is None:
            self._data_dependent_outputs = self._find_data_dependent_outputs()
        return self._data_dependent_outputs

    def _find_data_dependent_outputs(self) -> tuple[str, ...]:
        if not any(output.is_dynamic for output in self.outputs):
            return ()
        shapes = self._output_shapes.of_optimal_inputs()
        self._output_shapes.drop()  # it is asked once, and a context takes memory
        if shapes is None:
            return ()
        return tuple(output.name for output, shape in zip(self.outputs, shapes, strict=True) if None in shape)

    def inspect(self) -> dict[str, Any]:
        """Return the layers from TensorRT's engine inspector, as far as the plan kept their names.

        Returns
        -------
        dict
            The inspector's JSON, parsed; what it holds differs between backends.

        Raises
        ------
        ClosedError
            If the engine was closed.
        BackendError
            If the backend has no inspector.
        """
        text = self._backend.inspect(self._open_engine())
        information: dict[str, Any] = json.loads(text)
        return information

    def serialize(self) -> bytes:
        """Return the plan that the backend writes.

        Raises
        ------
        ClosedError
            If the engine was closed.
        BackendError
            If the backend cannot write it.
        """
        return self._backend.serialize(self._open_engine(), self._name)

    def close(self) -> None:
        """Wait for work in flight, close every module over this engine, and free its memory. Idempotent.

        Called in the middle of a call, by a callback or a finalizer, it closes the engine when the call has
        ended.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        when_free(partial(complete, self._users.gate.run, self._close))

    def _close(self) -> None:
        try:
            self._users.close()
        finally:
            self._handle.close()  # TensorRT wants an engine destroyed after its contexts

    def run_without_contexts(self, function: Callable[[Any], Result]) -> Result:
        """Keep calls out, with every execution context gone, while a function changes the engine.

        TensorRT refuses to change some things while contexts exist. Calls make new ones afterwards.

        Parameters
        ----------
        function : callable
            Called with TensorRT's ``ICudaEngine``.

        Returns
        -------
        object
            What the function returns.

        Raises
        ------
        ClosedError
            If the engine was closed.
        ExecutionError
            If CUDA reports that work in flight has failed, or if a call of this thread is under way.
        """
        return self._users.gate.run(self._run_without_contexts, function)

    def _run_without_contexts(self, function: Callable[[Any], Result]) -> Result:
        self._open_engine()
        return self._users.run_paused(lambda: function(self._open_engine()))

    @property
    def context_users(self) -> ContextUsers:
        """The users that are paused and closed with the engine. Change them only within their gate."""
        return self._users

    def automatic_weight_streaming_budget(self) -> int:
        """Return the budget in bytes that TensorRT proposes for the memory that is free on the device now.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        with current_device(self._device):
            return int(self._open_engine().get_weight_streaming_automatic_budget())

    def set_weight_streaming_budget(self, budget: int) -> None:
        """Change `weight_streaming_budget`, while no call runs.

        Parameters
        ----------
        budget : int
            Bytes, from 0 to `streamable_weights_size`.

        Raises
        ------
        ClosedError
            If the engine was closed.
        ExecutionError
            If TensorRT refuses, or CUDA reports that work in flight has failed; the budget is as it was.
        """
        if budget == self.weight_streaming_budget:
            return
        self.run_without_contexts(partial(self._set_budget, budget))

    def restore_weight_streaming_budget(self, budget: int, *, may_wait: bool) -> None:
        """Go back to a `weight_streaming_budget`, unless the engine was closed; the same to be called twice.

        Parameters
        ----------
        budget : int
            As for `set_weight_streaming_budget`.
        may_wait : bool
            Whether to wait for calls of other threads. If not, one of these restores the budget when it has
            ended. A call of this thread is never waited for.
        """

        def restore() -> None:
            if not self.closed:
                self.set_weight_streaming_budget(budget)

        when_free(restore, () if may_wait else self._users.gates())

    def _set_budget(self, budget: int, engine: Any) -> None:
        with current_device(self._device):
            self._backend.set_weight_streaming_budget(engine, budget, self._name)

    def restore(self, plan: bytes) -> None:
        """Go back to a plan of `serialize`; only within `run_without_contexts`.

        Parameters
        ----------
        plan : bytes
            What this engine was, with other weights.

        Raises
        ------
        ClosedError
            If the engine was closed.
        PlanError
            If the backend refuses the plan, mostly for lack of memory; then the engine is closed, since
            nobody knows what it holds.
        """
        try:
            with current_device(self._device):
                self._handle.reload(plan)
        except PlanError:
            self._handle.close()
            raise

    def new_refitter(self) -> EngineRefitter:
        """Return an object that gives this engine new weights, and keeps TensorRT's engine loaded.

        Raises
        ------
        ClosedError
            If the engine was closed.
        BackendError
            If it was not built to be refitted, or TensorRT cannot.
        """
        with current_device(self._device):
            return self._backend.refitter(self._open_engine(), self._name)

    def require_runtime_settings(self) -> None:
        """Raise unless the engine's backend has the settings of `RuntimeSettings`.

        Raises
        ------
        BackendError
            The backend is not TensorRT-RTX.
        """
        self._backend.require_runtime_settings()

    def save_runtime_cache(self) -> None:
        """Write the kernels that were compiled so far to the files of `RuntimeSettings.runtime_cache`.

        Closing the engine does so too, and so does the end of the process.

        Raises
        ------
        OSError
            A file cannot be written; it is unchanged.
        ClosedError
            The engine was closed.
        """
        self._open_engine()
        self._handle.kernel_caches.save()

    def new_context_factory(self, settings: ContextSettings | None = None) -> ContextFactory:
        """Return a maker of execution contexts for one module.

        Parameters
        ----------
        settings : ContextSettings, optional
            To begin with. Default: TensorRT's own.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        self._open_engine()
        return ContextFactory(self._handle, self._device, settings or ContextSettings())

    def new_executor(
        self,
        inputs: Sequence[IOTensor],
        outputs: Sequence[IOTensor],
        contexts: ContextFactory,
        **options: Any,
    ) -> Executor:
        """An `Executor` with an execution context of its own.

        Parameters
        ----------
        inputs, outputs : sequence of IOTensor
            All of the engine's, in the order that calls use.
        contexts : ContextFactory
            Of `new_context_factory`.
        **options
            Further arguments of `Executor`.

        Returns
        -------
        Executor

        Raises
        ------
        ClosedError
            If the engine was closed.
        BackendError
            If there is no memory for a context.
        """
        return self._users.gate.run(self._new_executor, tuple(inputs), tuple(outputs), contexts, options)

    def _new_executor(
        self,
        inputs: tuple[IOTensor, ...],
        outputs: tuple[IOTensor, ...],
        contexts: ContextFactory,
        options: dict[str, Any],
    ) -> Executor:
        with current_device(self._device):
            self._open_engine()
            executor = Executor(
                contexts,
                inputs,
                outputs,
                device=self._device,
                name=self._name,
                take_error=self._backend.log.take_error,
                new_allocator=output_allocator_class(self._backend.api),
                **options,
            )
            self._users.add(executor)
        return executor

    def _open_engine(self) -> Any:
        if self._device.type == "cuda" and os.getpid() != self._process:
            raise ExecutionError(
                f"engine {self._name!r} was loaded before this process was forked, and CUDA cannot be used "
                "in a forked child. Start the process with the method 'spawn' or 'forkserver', and load the "
                "engine there."
            )
        return self._handle.engine
