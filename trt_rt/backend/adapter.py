"""One backend: a module that honours TensorRT's Python API.

What is the same in every TensorRT is here; what differs is in the subclass of each, in a file of its own.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any, ClassVar

import torch

from trt_rt._core.driver import device_count
from trt_rt._core.io_tensor import IOTensor, ProfileRange
from trt_rt.backend.engine_refitter import EngineRefitter
from trt_rt.backend.log import TensorRTLog
from trt_rt.backend.plan_kind import PlanKind, identify_plan
from trt_rt.backend.runtime_settings import has_runtime_settings
from trt_rt.backend.shared_libraries import loaded_by
from trt_rt.errors import BackendError, ExecutionError, PlanError

__all__ = ["Backend"]

# By TensorRT's name of the member, since the numbers differ between versions.
_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT8": torch.int8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "FP8": torch.float8_e4m3fn,
}


class Backend:
    """A TensorRT, by whatever name it is installed.

    Parameters
    ----------
    name : str
        For messages; one of `trt_rt.backend.NAMES`, or any for a module of one's own.
    api : module
        A module that honours TensorRT's Python API: ``Runtime``, ``ILogger``, the enums.
    runs_on_cpu : bool, optional
        Whether its engines can run with no GPU.

    Attributes
    ----------
    title : str
        What people call it.
    builds_without_gpu : bool
        Whether its builder needs no GPU.
    modules : tuple of str
        Names under which it is imported, the first that is installed counting.
    libraries : tuple of str
        Its shared libraries, without ``lib`` and ``.so``, in the order in which they are loaded.
    library_packages : tuple of str
        Python packages that carry them.
    how_to_install : str
        A sentence.
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
        """The ``ILogger`` for whatever of the backend is given one."""
        return self.log.ilogger

    @property
    def version(self) -> str:
        """Of the module."""
        return str(self.api.__version__)

    @property
    def release(self) -> tuple[int, ...]:
        """Major, minor and patch of what runs the engines: the library, else the module."""
        if self.library is not None:
            return self.library.version
        return tuple(int(number) for number in re.findall(r"\d+", self.version)[:3])

    @property
    def has_builder(self) -> bool:
        """Whether it can make plans, on a machine that fits."""
        return hasattr(self.api, "Builder") or hasattr(self.api, "build")

    def check_library(self) -> None:
        """Make sure that the library is not older than the bindings, which would call what it lacks.

        Raises
        ------
        BackendError
            If it is.
        """
        bindings = tuple(int(number) for number in re.findall(r"\d+", self.version)[:3])
        if self.library is not None and self.library.version < bindings:
            raise BackendError(
                f"backend {self.name!r}: the bindings are of version {self.version}, and the library that "
                f"they found is the older {_dotted(self.library.version)} ({self.library.path}). Install "
                "both in the same version."
            )

    def plan_device(self, plan: memoryview) -> str | None:
        """The kind of device that a plan was built for, ``cpu`` or ``cuda``; None if it does not matter."""
        return None

    def require(self, device: torch.device) -> None:
        """Make sure that engines can run on `device`.

        Raises
        ------
        BackendError
            If not. Found out before a Runtime is made, because with no driver TensorRT returns an object
            whose first use ends the process.
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
        """Why engines do not run on GPUs of that compute capability, in a sentence; "" if they do."""
        return ""

    def runtime(self) -> Any:
        """A new ``Runtime``, which lets no plan run code of its own in this process. Only after `require`.

        Raises
        ------
        BackendError
            If TensorRT makes none.
        """
        runtime = self.api.Runtime(self.logger)
        if runtime is None:
            raise BackendError(f"backend {self.name!r} made no Runtime. {self._says()}")
        return runtime

    def why_not_run(self, kind: PlanKind) -> str:
        """Why plans of a kind and version do not run here, and what to do, in sentences; "" if they may.

        Parameters
        ----------
        kind : PlanKind
            What the plan's first bytes say.
        """
        return ""

    def deserialize(self, runtime: Any, plan: Any, name: str) -> Any:
        """An ``ICudaEngine`` from a plan (any object with the buffer protocol).

        Raises
        ------
        PlanError
            If the backend refuses the plan; with its own last message.
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
        """What the plan is, what it met here and what may help; TensorRT's own messages do not say."""
        kind = identify_plan(memoryview(plan).cast("B"))
        if not kind.backends or self.runs_on_cpu:
            return ""
        here = f"{self.title} {_dotted(self.release)}"
        if torch.cuda.is_available():
            major, minor = torch.cuda.get_device_capability()
            here += f" and {torch.cuda.get_device_name()} (compute capability {major}.{minor})"
        advice = (
            f" It is {kind.description}; here are {here}. Build it with this version for this GPU, or load "
            "it where it was built."
        )
        if not host_code_allowed and "tensorrt" in kind.backends:
            advice += (
                " A version-compatible plan also needs engine_host_code_allowed=True, because it brings code "
                "that runs in this process: allow that only for a file that you trust."
            )
        return advice

    def serialize(self, engine: Any, name: str) -> bytes:
        """An engine's plan.

        Raises
        ------
        BackendError
            If TensorRT makes none.
        """
        self.log.take_error()
        plan = engine.serialize()
        if plan is None:
            raise BackendError(f"engine {name!r}: {self.name} made no plan of it. {self._says()}")
        return bytes(plan)

    def require_runtime_settings(self) -> None:
        """Raise unless this TensorRT has the settings of `RuntimeSettings`.

        Raises
        ------
        BackendError
            It has none.
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
        """A new ``IExecutionContext``.

        Parameters
        ----------
        engine : ICudaEngine
            Whose.
        name : str
            For messages.
        user_managed : bool, optional
            It runs in scratch memory of `set_device_memory` only.
        config : IRuntimeConfig, optional
            The settings that it runs with. Default: TensorRT's.

        Raises
        ------
        BackendError
            If TensorRT makes none, mostly for lack of memory.
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
        """What gives an engine new weights.

        Parameters
        ----------
        engine : ICudaEngine
            Whose weights change.
        name : str
            For messages.

        Raises
        ------
        BackendError
            If the engine was not built to be refitted, or TensorRT makes none.
        """
        if not engine.refittable:
            raise BackendError(
                f"engine {name!r} cannot be refitted. Build it with BuilderFlag.REFIT (reference backend: "
                "refittable=True; Torch-TensorRT: immutable_weights=False)."
            )
        self.log.take_error()
        try:
            refitter = self.api.Refitter(engine, self.logger)
        except (AttributeError, TypeError):  # the bindings' way of saying that TensorRT gave none
            raise BackendError(
                f"engine {name!r}: {self.name} {self.version} made no Refitter. {self._says()}"
            ) from None
        return EngineRefitter(self.api, refitter, _DTYPES, self.log.take_error)

    def set_weight_streaming_budget(self, engine: Any, budget: int, name: str) -> None:
        """Let `budget` bytes of an engine's streamable weights stay on the device; it must have no contexts.

        Raises
        ------
        ExecutionError
            If TensorRT refuses.
        """
        self.log.take_error()
        engine.weight_streaming_budget_v2 = budget
        # The bindings drop what TensorRT returned.
        in_force = engine.weight_streaming_budget_v2
        if in_force != budget:
            raise ExecutionError(
                f"engine {name!r} keeps its weight streaming budget of {in_force} bytes; {budget} were asked "
                f"for. {self._says()}"
            )

    def device_memory_size(self, engine: Any) -> int:
        """Bytes of scratch memory that a context needs, whatever its shapes."""
        return int(engine.device_memory_size_v2)

    def set_device_memory(self, context: Any, address: int, size: int) -> None:
        """Let a context of the user-managed kind run in `size` bytes at `address`.

        Raises
        ------
        ExecutionError
            If TensorRT logs that it refuses; the call itself returns nothing.
        """
        self.log.take_error()
        context.set_device_memory(address, size)
        if message := self.log.take_error():
            raise ExecutionError(
                f"backend {self.name!r} refuses {size} bytes of scratch memory at {address:#x}. It says: "
                f"{message}"
            )

    def io_tensors(self, engine: Any) -> tuple[IOTensor, ...]:
        """The engine's I/O tensors, in its order.

        Raises
        ------
        PlanError
            If one has a dtype or a memory layout that no PyTorch tensor has.
        """
        return tuple(self._io_tensor(engine, engine.get_tensor_name(i)) for i in range(engine.num_io_tensors))

    def _io_tensor(self, engine: Any, name: str) -> IOTensor:
        is_input = engine.get_tensor_mode(name) == self.api.TensorIOMode.INPUT
        is_host = engine.get_tensor_location(name) == self.api.TensorLocation.HOST
        member = engine.get_tensor_dtype(name).name
        if member not in _DTYPES:
            raise PlanError(
                f"I/O tensor {name!r} is {member}, which PyTorch has no dtype for that DLPack can name."
            )
        tensor_format = self.tensor_format(engine, name)
        if tensor_format not in ("LINEAR", "DLA_LINEAR"):
            raise PlanError(
                f"I/O tensor {name!r} has TensorRT's memory layout {tensor_format}; PyTorch's tensors are "
                "LINEAR. Build the engine with linear inputs and outputs."
            )
        return IOTensor(
            name=name,
            mode="input" if is_input else "output",
            dtype=_DTYPES[member],
            shape=tuple(engine.get_tensor_shape(name)),
            location="host" if is_host else "device",
            format=tensor_format,
            profiles=self._profiles(engine, name, is_host) if is_input else (),
            aliased_input=None if is_input else self._aliased_input(engine, name),
        )

    def tensor_format(self, engine: Any, name: str) -> str:
        """An I/O tensor's memory layout, as TensorRT names it."""
        return str(engine.get_tensor_format(name).name)

    def _profiles(self, engine: Any, name: str, is_host: bool) -> tuple[ProfileRange, ...]:
        ranges = []
        for index in range(engine.num_optimization_profiles):
            if is_host:
                # Its docstring calls the arguments (name, profile_index); they are the other way round.
                limits = engine.get_tensor_profile_values(index, name)
            else:
                limits = engine.get_tensor_profile_shape(name, index)
            if len(limits) == 3:  # empty where no profile restricts the tensor
                ranges.append(ProfileRange(*(tuple(int(size) for size in limit) for limit in limits)))
        return tuple(ranges)

    def _aliased_input(self, engine: Any, name: str) -> str | None:
        lookup = getattr(engine, "get_aliased_input_tensor", None)  # since TensorRT 10.15
        return (lookup(name) or None) if lookup else None

    def inspect(self, engine: Any) -> str:
        """TensorRT's engine inspector: layers, as JSON text.

        Raises
        ------
        BackendError
            If the backend has none (the lean and dispatch runtimes).
        """
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(self.api.LayerInformationFormat.JSON))

    def plugin_registry(self) -> Any:
        """The ``IPluginRegistry``.

        Raises
        ------
        BackendError
            If the backend has none.
        """
        registry = getattr(self.api, "get_plugin_registry", lambda: None)()
        if registry is None:
            raise BackendError(f"backend {self.name!r} has no plugins: {self.title} has no plugin registry.")
        return registry


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version)
