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

from trt_rt._core.critical import complete, when_free
from trt_rt._core.io_tensor import IOTensor
from trt_rt.backend import Backend
from trt_rt.backend.registry import is_registered
from trt_rt.engine.context_users import ContextUsers
from trt_rt.engine.contexts import ContextFactory
from trt_rt.engine.handle import EngineHandle
from trt_rt.engine.loading import load_plan, map_file
from trt_rt.engine.output_shapes import OutputShape, OutputShapes
from trt_rt.engine.weight_budget import WeightBudget

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

    def __init__(self, handle: EngineHandle) -> None:
        self._handle = handle
        self._users = ContextUsers(handle)
        self._weight_budget = WeightBudget(handle, self._users)
        self._io = handle.backend.io_tensors(handle.engine)
        self._output_shapes = OutputShapes(ContextFactory(handle), self.inputs, self.outputs)
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
        handle = load_plan(
            plan,
            backend=backend,
            device=device,
            name=name or "engine",
            engine_host_code_allowed=engine_host_code_allowed,
            sha256=sha256,
        )
        return cls(handle)

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
        return cls.from_bytes(
            map_file(path),
            backend=backend,
            device=device,
            name=name or path.name,
            engine_host_code_allowed=engine_host_code_allowed,
            sha256=sha256,
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"on {self.device}"
        return f"<Engine {self.name!r} {self._handle.backend.name} {state}>"

    def __enter__(self) -> Engine:
        self._handle.engine  # noqa: B018  raises if it was closed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The engine's name in messages."""
        return self._handle.name

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
        backend = self._handle.backend
        return backend.name if is_registered(backend) else backend

    @property
    def api(self) -> Any:
        """The backend's Python module, which has TensorRT's API."""
        return self._handle.backend.api

    @property
    def tensorrt_version(self) -> str:
        """The version of the engine's backend."""
        return self._handle.backend.version

    @property
    def device(self) -> torch.device:
        """The device of the engine's weights and tensors."""
        return self._handle.device

    @property
    def num_optimization_profiles(self) -> int:
        """The number of optimization profiles.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        return int(self._handle.engine.num_optimization_profiles)

    @property
    def workspace_size(self) -> int:
        """The scratch memory of one execution context, in bytes, for the largest shapes of any profile.

        Raises
        ------
        ClosedError
            The engine was closed.
        """
        return self._handle.backend.device_memory_size(self._handle.engine)

    @property
    def streamable_weights_size(self) -> int:
        """The bytes of weights that can stay in host memory; 0 without support for weight streaming.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        return int(self._handle.engine.streamable_weights_size)

    @property
    def weight_streaming_budget(self) -> int:
        """The bytes of streamable weights that stay on the device; the others are copied in every call.

        Set it with `trt_rt.runtime.weight_streaming`.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        return self._weight_budget.value

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
        return self._output_shapes.data_dependent_outputs()

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
        text = self._handle.backend.inspect(self._handle.engine)
        information: dict[str, Any] = json.loads(text)
        return information

    def serialize(self) -> bytes:
        """Return the plan that the backend writes.

        The errors are those of `serialized`.
        """
        return bytes(self.serialized())

    def serialized(self) -> memoryview:
        """Return the plan that the backend writes, in the backend's own memory.

        Returns
        -------
        memoryview
            Read-only bytes. It keeps the memory, which `serialize` copies.

        Raises
        ------
        ClosedError
            If the engine was closed.
        BackendError
            If the backend cannot write it.
        """
        return self._handle.backend.serialize(self._handle.engine, self.name).toreadonly()

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
        return self._users.run_paused(function)

    @property
    def handle(self) -> EngineHandle:
        """TensorRT's engine and runtime, for the parts of trt_rt that make contexts or change weights."""
        return self._handle

    @property
    def context_users(self) -> ContextUsers:
        """The users that are paused and closed with the engine. Change them only within their gate."""
        return self._users

    @property
    def weight_budget(self) -> WeightBudget:
        """The changes of `weight_streaming_budget`."""
        return self._weight_budget

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
        self._weight_budget.set(budget)

    def require_runtime_settings(self) -> None:
        """Raise unless the engine's backend has the settings of `RuntimeSettings`.

        Raises
        ------
        BackendError
            The backend is not TensorRT-RTX.
        """
        self._handle.backend.require_runtime_settings()

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
        self._handle.engine  # noqa: B018  raises if it was closed
        self._handle.kernel_caches.save()
