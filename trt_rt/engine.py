"""An engine: a plan that a backend has loaded onto a device."""

from __future__ import annotations

import json
import mmap
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from trt_rt._core.executor import Executor
from trt_rt._core.io_tensor import IOTensor
from trt_rt.backend import Backend, choose_backend
from trt_rt.errors import BackendError, ClosedError, PlanError
from trt_rt.output_allocator import output_allocator_class

__all__ = ["Engine"]


class Engine:
    """A plan loaded by a backend; make one with `from_bytes` or `load`.

    An engine owns the weights on its device. Modules over it share them, each with an execution context of
    its own. Closing it (also by leaving ``with``) closes every module over it.
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
        self._lock = threading.Lock()
        self._executors: weakref.WeakSet[Executor] = weakref.WeakSet()
        # In the order in which they are released: TensorRT wants a runtime destroyed after its engines.
        self._engine: Any = None
        self._runtime: Any = None
        backend.require(device)
        with _current_device(device):
            self._runtime = backend.runtime()
            if engine_host_code_allowed:
                self._runtime.engine_host_code_allowed = True
            self._engine = backend.deserialize(self._runtime, plan, name)
        self._io = backend.io_tensors(self._engine)

    @classmethod
    def from_bytes(
        cls,
        plan: bytes | bytearray | memoryview | mmap.mmap,
        *,
        backend: str | Backend = "auto",
        device: torch.device | str | int | None = None,
        name: str = "",
        engine_host_code_allowed: bool = False,
    ) -> Engine:
        """Load a plan.

        Parameters
        ----------
        plan : bytes-like
            A serialized engine. Not needed any more once this returns.
        backend : str or Backend, optional
            "auto" goes by the plan's first bytes; see `trt_rt.backends`. A plan of an unknown kind given to a
            named backend is handed to it, and the backend decides.
        device : torch.device, str or int, optional
            Where it runs. Default: the current CUDA device, or the CPU if there is none and the backend runs
            there.
        name : str, optional
            For messages. Default: "engine".
        engine_host_code_allowed : bool, optional
            Whether the plan may bring code that runs in this process, as version-compatible plans do. Only
            for plans that you trust.

        Returns
        -------
        Engine

        Raises
        ------
        PlanError
            If the plan is empty, corrupted, of another kind or version than the backend's.
        BackendError
            If the backend is missing, or cannot run on the device.
        """
        view = memoryview(plan).cast("B")
        name = name or "engine"
        chosen = choose_backend(view, backend, name)
        resolved = _resolve_device(device, chosen)
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
    ) -> Engine:
        """Load a plan from a file, which is mapped into memory and not copied.

        Parameters
        ----------
        path : path-like
            A file with a plan and nothing else.
        backend, device, name, engine_host_code_allowed
            As for `from_bytes`; the name's default is the file's.

        Returns
        -------
        Engine

        Raises
        ------
        OSError
            If the file cannot be read: FileNotFoundError, PermissionError, IsADirectoryError.
        PlanError, BackendError
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
        """For messages."""
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
    def backend(self) -> str:
        """Name of the backend that runs it."""
        return self._backend.name

    @property
    def tensorrt_version(self) -> str:
        """Version of the backend that runs it."""
        return self._backend.version

    @property
    def device(self) -> torch.device:
        """Where its weights and device tensors live."""
        return self._device

    @property
    def num_optimization_profiles(self) -> int:
        """How many optimization profiles it was built with.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        return int(self._open_engine().num_optimization_profiles)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._engine is None

    def inspect(self) -> dict[str, Any]:
        """What TensorRT's engine inspector says: the layers, as far as the plan kept their names.

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
        """The plan, as the backend writes it.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        return bytes(self._open_engine().serialize())

    def close(self) -> None:
        """Wait for work in flight, close every module over this engine, and free its memory. Idempotent.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        with self._lock:
            for executor in list(self._executors):
                executor.close()
            # TensorRT wants an engine destroyed after its contexts, and a runtime after its engines.
            self._engine = None
            self._runtime = None

    def new_executor(
        self, inputs: Sequence[IOTensor], outputs: Sequence[IOTensor], *, allocate_all: bool = False
    ) -> Executor:
        """An `Executor` with an execution context of its own; `TRTModule` makes and uses one.

        Parameters
        ----------
        inputs, outputs : sequence of IOTensor
            All of the engine's, in the order that calls use.
        allocate_all : bool, optional
            TensorRT allocates every output.

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
        backend = self._backend
        with self._lock:
            engine = self._open_engine()
            with _current_device(self._device):
                context = backend.create_context(engine, self._name)
            executor = Executor(
                context,
                tuple(inputs),
                tuple(outputs),
                device=self._device,
                name=self._name,
                take_error=backend.log.take_error,
                new_allocator=output_allocator_class(backend.api),
                owner=(backend, self._runtime, engine),  # a tuple lets go of its last item first
                allocate_all=allocate_all,
            )
            self._executors.add(executor)
        return executor

    def _open_engine(self) -> Any:
        if self._engine is None:
            raise ClosedError(f"engine {self._name!r} was closed; load it again to use it.")
        return self._engine


def _resolve_device(device: torch.device | str | int | None, backend: Backend) -> torch.device:
    if device is None:
        device = "cpu" if backend.runs_on_cpu and not torch.cuda.is_available() else "cuda"
    try:
        resolved = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BackendError(f"device={device!r} is no device: {str(error).splitlines()[0]}") from None
    if resolved.type not in ("cpu", "cuda") or (resolved.index or 0) < 0:
        raise BackendError(
            f"engines run on CUDA devices (and the reference backend on the CPU), not on {resolved}."
        )
    if resolved.type == "cpu":
        return torch.device("cpu")
    if resolved.index is None and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cuda", resolved.index or 0)


def _current_device(device: torch.device) -> torch.cuda.device:
    """The device while TensorRT loads; the caller's is back afterwards."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
