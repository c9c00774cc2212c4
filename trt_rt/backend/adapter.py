"""The base class of all backends: a Python module with TensorRT's API.

This file has the code that is the same for every TensorRT. Each backend has a subclass with its differences,
in a file of its own.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any, ClassVar

import torch

from trt_rt._core.driver import device_count
from trt_rt._core.io_tensor import IOTensor
from trt_rt.backend.engine_refitter import EngineRefitter
from trt_rt.backend.io_tensors import DTYPES, describe_io_tensor
from trt_rt.backend.log import TensorRTLog
from trt_rt.backend.plan_kind import PlanKind, identify_plan
from trt_rt.backend.runtime_settings import has_runtime_settings
from trt_rt.backend.shared_libraries import loaded_by
from trt_rt.errors import BackendError, ExecutionError, PlanError

__all__ = ["Backend"]


class Backend:
    """One TensorRT: its Python module, its log and its libraries.

    Parameters
    ----------
    name : str
        The name in messages: one of `trt_rt.backend.NAMES`, or any name for a user's own module.
    api : module
        A module with TensorRT's Python API: ``Runtime``, ``ILogger``, the enums.
    runs_on_cpu : bool, optional
        Whether its engines can run without a GPU.

    Attributes
    ----------
    title : str
        The backend's name in sentences.
    builds_without_gpu : bool
        Whether its builder works without a GPU.
    modules : tuple of str
        The names of its Python module; the first one that is installed is imported.
    libraries : tuple of str
        Its shared libraries, without ``lib`` and ``.so``, in the order in which they are loaded.
    library_packages : tuple of str
        Python packages that contain the libraries.
    how_to_install : str
        A sentence for messages.
    """

    title: ClassVar[str] = "this module"
    builds_without_gpu: ClassVar[bool] = True
    modules: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ()
    library_packages: ClassVar[tuple[str, ...]] = ()
    how_to_install: ClassVar[str] = ""

    def __init__(self, name: str, api: ModuleType, *, runs_on_cpu: bool = False) -> None:
        self.name = name
        self.api: Any = api
        self.runs_on_cpu = runs_on_cpu
        self.library = loaded_by(api)
        self.log = TensorRTLog(api)

    def __repr__(self) -> str:
        return f"<Backend {self.name} {self.version}>"

    @property
    def logger(self) -> Any:
        """The ``ILogger`` of the backend's ``Runtime``, ``Builder`` and other objects."""
        return self.log.ilogger

    @property
    def version(self) -> str:
        """The version of the Python module."""
        return str(self.api.__version__)

    @property
    def release(self) -> tuple[int, ...]:
        """Major, minor and patch of the library, or of the module if there is no library."""
        if self.library is not None:
            return self.library.version
        return tuple(int(number) for number in re.findall(r"\d+", self.version)[:3])

    @property
    def has_builder(self) -> bool:
        """Whether the backend has a builder. The builder may need a GPU."""
        return hasattr(self.api, "Builder") or hasattr(self.api, "build")

    def check_library(self) -> None:
        """Refuse a library that is older than the bindings, which would call functions that it lacks.

        Raises
        ------
        BackendError
            The library is older.
        """
        bindings = tuple(int(number) for number in re.findall(r"\d+", self.version)[:3])
        if self.library is not None and self.library.version < bindings:
            raise BackendError(
                f"backend {self.name!r}: the bindings have version {self.version}, but the library that they "
                f"found has the older version {_dotted(self.library.version)} ({self.library.path}). Install "
                "both in the same version."
            )

    def plan_device(self, plan: memoryview) -> str | None:
        """Return the kind of device that a plan was built for, ``cpu`` or ``cuda``; None if any will do."""
        return None

    def require(self, device: torch.device) -> None:
        """Refuse a device on which the backend's engines cannot run.

        Call this before `runtime`: without a driver TensorRT returns an object whose first use ends the
        process.

        Raises
        ------
        BackendError
            Engines cannot run on `device`.
        """
        if device.type == "cpu" and self.runs_on_cpu:
            return
        count, why = device_count()
        if count == 0:
            raise BackendError(f"backend {self.name!r} cannot run engines on {device}: {why}.")
        if device.type != "cuda":
            raise BackendError(f"backend {self.name!r} runs engines on CUDA devices, not on {device}.")
        if not torch.cuda.is_available():
            raise BackendError(
                f"backend {self.name!r} cannot run engines on {device}: "
                f"PyTorch {torch.__version__} does not see CUDA."
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise BackendError(f"there is no {device}; PyTorch sees {torch.cuda.device_count()} GPU(s).")
        if unsupported := self.why_not_on(torch.cuda.get_device_capability(device)):
            raise BackendError(f"backend {self.name!r} cannot run engines on {device}: {unsupported}")

    def why_not_on(self, compute_capability: tuple[int, int]) -> str:
        """Return a sentence that says why engines do not run on a compute capability; "" if they do."""
        return ""

    def runtime(self) -> Any:
        """Return a new ``Runtime``, which refuses plans with host code. Call `require` first.

        Raises
        ------
        BackendError
            TensorRT made no ``Runtime``.
        """
        runtime = self.api.Runtime(self.logger)
        if runtime is None:
            raise BackendError(f"backend {self.name!r} made no Runtime. {self._says()}")
        return runtime

    def why_not_run(self, kind: PlanKind) -> str:
        """Return why a kind of plan does not run here and what to do, in sentences; "" if it may run.

        Parameters
        ----------
        kind : PlanKind
            The kind and version, from the plan's first bytes.
        """
        return ""

    def deserialize(self, runtime: Any, plan: Any, name: str) -> Any:
        """Return an ``ICudaEngine`` from a plan (any object with the buffer protocol).

        Raises
        ------
        PlanError
            The backend refuses the plan. The error has the backend's last message.
        """
        try:
            engine = runtime.deserialize_cuda_engine(plan)
        except Exception as error:
            raise PlanError(
                f"engine {name!r}: {self.name} {self.version} cannot read the plan: {error}"
            ) from error
        if engine is None:
            host_code_allowed = getattr(runtime, "engine_host_code_allowed", False)
            advice = self._advise(plan, host_code_allowed=host_code_allowed)
            raise PlanError(
                f"engine {name!r}: {self.name} {self.version} refuses the plan. {self._says()}{advice}"
            )
        return engine

    def _says(self) -> str:
        message = self.log.take_error()
        return f"It says: {message}" if message else "It logged no reason."

    def _advise(self, plan: Any, *, host_code_allowed: bool) -> str:
        """Return sentences about the plan, this machine and possible remedies; TensorRT gives none."""
        kind = identify_plan(memoryview(plan).cast("B"))
        if not kind.backends or self.runs_on_cpu:
            return ""
        here = f"{self.title} {_dotted(self.release)}"
        if torch.cuda.is_available():
            major, minor = torch.cuda.get_device_capability()
            here += f" and {torch.cuda.get_device_name()} (compute capability {major}.{minor})"
        advice = (
            f" The plan is {kind.description}; this machine has {here}. Build the plan with this version for "
            "this GPU, or load it where it was built."
        )
        if not host_code_allowed and "tensorrt" in kind.backends:
            advice += (
                " A version-compatible plan also needs engine_host_code_allowed=True, because it brings code "
                "that runs in this process: allow that only for a file that you trust."
            )
        return advice

    def serialize(self, engine: Any, name: str) -> memoryview:
        """Return an engine's plan, in memory that TensorRT has allocated for it.

        Raises
        ------
        BackendError
            TensorRT made no plan.
        """
        self.log.take_error()
        plan = engine.serialize()
        if plan is None:
            raise BackendError(f"engine {name!r}: {self.name} did not serialize it. {self._says()}")
        return memoryview(plan).cast("B")

    def require_runtime_settings(self) -> None:
        """Refuse a TensorRT without the settings of `RuntimeSettings`.

        Raises
        ------
        BackendError
            This TensorRT has no such settings.
        """
        if not has_runtime_settings(self.api):
            raise BackendError(
                f"backend {self.name!r} has no runtime settings: RuntimeSettings and runtime_config are for "
                "TensorRT-RTX, whose kernels are compiled when an engine runs. Leave them out, or build the "
                "engine with backend='tensorrt_rtx'."
            )

    def create_context(
        self, engine: Any, name: str, *, user_managed: bool = False, config: Any = None
    ) -> Any:
        """Return a new ``IExecutionContext``.

        Parameters
        ----------
        engine : ICudaEngine
            The engine of the context.
        name : str
            The engine's name in messages.
        user_managed : bool, optional
            Whether the context gets its scratch memory only from `set_device_memory`.
        config : IRuntimeConfig, optional
            The settings that the context runs with. Default: TensorRT's own.

        Raises
        ------
        BackendError
            TensorRT made no context, usually for lack of memory.
        """
        if config is not None:
            if user_managed:
                strategies = self.api.ExecutionContextAllocationStrategy
                config.set_execution_context_allocation_strategy(strategies.USER_MANAGED)
            context = engine.create_execution_context(config)
        elif user_managed:
            context = engine.create_execution_context(
                self.api.ExecutionContextAllocationStrategy.USER_MANAGED
            )
        else:
            context = engine.create_execution_context()
        if context is None:
            raise BackendError(f"engine {name!r}: {self.name} made no execution context. {self._says()}")
        return context

    def refitter(self, engine: Any, name: str) -> EngineRefitter:
        """Return an object that gives an engine new weights.

        Parameters
        ----------
        engine : ICudaEngine
            The engine that gets new weights.
        name : str
            The engine's name in messages.

        Raises
        ------
        BackendError
            The engine was not built to be refitted, or TensorRT made no ``Refitter``.
        """
        if not engine.refittable:
            raise BackendError(
                f"engine {name!r} cannot be refitted. Build it with BuilderFlag.REFIT (reference backend: "
                "refittable=True; Torch-TensorRT: immutable_weights=False)."
            )
        self.log.take_error()
        try:
            refitter = self.api.Refitter(engine, self.logger)
        except (AttributeError, TypeError):  # raised by the bindings if TensorRT makes none
            raise BackendError(
                f"engine {name!r}: {self.name} {self.version} made no Refitter. {self._says()}"
            ) from None
        return EngineRefitter(self.api, refitter, DTYPES, self.log.take_error)

    def set_weight_streaming_budget(self, engine: Any, budget: int, name: str) -> None:
        """Set how many bytes of streamable weights stay on the device. The engine must have no contexts.

        Raises
        ------
        ExecutionError
            TensorRT refuses the budget.
        """
        self.log.take_error()
        engine.weight_streaming_budget_v2 = budget
        # The bindings drop the return value of TensorRT's setter.
        in_force = engine.weight_streaming_budget_v2
        if in_force != budget:
            raise ExecutionError(
                f"engine {name!r}: TensorRT refuses a weight streaming budget of {budget} bytes and keeps "
                f"{in_force} bytes. {self._says()}"
            )

    def device_memory_size(self, engine: Any) -> int:
        """Return the bytes of scratch memory that a context needs for the largest shapes."""
        return int(engine.device_memory_size_v2)

    def set_device_memory(self, context: Any, address: int, size: int) -> None:
        """Give a user-managed context `size` bytes of scratch memory at `address`.

        Raises
        ------
        ExecutionError
            TensorRT logs a refusal; its function returns nothing.
        """
        self.log.take_error()
        context.set_device_memory(address, size)
        if message := self.log.take_error():
            raise ExecutionError(
                f"backend {self.name!r} refuses {size} bytes of scratch memory at {address:#x}. It says: "
                f"{message}"
            )

    def io_tensors(self, engine: Any) -> tuple[IOTensor, ...]:
        """Return the engine's I/O tensors, in the engine's order.

        Raises
        ------
        PlanError
            A tensor has a dtype or a memory layout that no PyTorch tensor has.
        """
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return tuple(
            describe_io_tensor(self.api, engine, name, self.tensor_format(engine, name)) for name in names
        )

    def tensor_format(self, engine: Any, name: str) -> str:
        """Return TensorRT's name of an I/O tensor's memory layout."""
        return str(engine.get_tensor_format(name).name)

    def inspect(self, engine: Any) -> str:
        """Return the layers of an engine as JSON text, from TensorRT's engine inspector.

        Raises
        ------
        BackendError
            The backend has no inspector (the lean and dispatch runtimes).
        """
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(self.api.LayerInformationFormat.JSON))

    def plugin_registry(self) -> Any:
        """Return the ``IPluginRegistry``.

        Raises
        ------
        BackendError
            The backend has no registry.
        """
        registry = getattr(self.api, "get_plugin_registry", lambda: None)()
        if registry is None:
            raise BackendError(f"backend {self.name!r} has no plugins: {self.title} has no plugin registry.")
        return registry


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version)
