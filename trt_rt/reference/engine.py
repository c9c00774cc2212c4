"""``ICudaEngine``: describes an engine, and makes its contexts."""

from __future__ import annotations

import torch

from trt_rt.reference.configs import IRuntimeConfig, ISerializationConfig
from trt_rt.reference.dims import NO_DIMS, Dims
from trt_rt.reference.dtypes import TENSORRT_DTYPES
from trt_rt.reference.enums import (
    DataType,
    EngineCapability,
    ExecutionContextAllocationStrategy,
    HardwareCompatibilityLevel,
    ProfilingVerbosity,
    SerializationFlag,
    TensorFormat,
    TensorIOMode,
    TensorLocation,
)
from trt_rt.reference.execution_context import IExecutionContext
from trt_rt.reference.host_memory import IHostMemory
from trt_rt.reference.inspector import EngineInspector
from trt_rt.reference.io_tensors import InputTensor, OutputTensor
from trt_rt.reference.loaded_engine import LoadedEngine
from trt_rt.reference.profiles import Range

__all__ = ["ICudaEngine"]


class ICudaEngine:
    """An engine; :meth:`Runtime.deserialize_cuda_engine` makes it.

    For a name that is no I/O tensor, or an index out of range, it logs an error and returns what TensorRT
    returns: NONE, False, -1 or dimensions without a length.
    """

    def __init__(self, loaded: LoadedEngine, runtime: object) -> None:
        self._loaded = loaded
        self._plan = loaded.plan
        tensors: list[InputTensor | OutputTensor] = [*loaded.plan.inputs, *loaded.plan.outputs]
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._names = tuple(self._tensors)
        # Keeps the Runtime alive, as TensorRT requires.
        self._runtime = runtime

    @property
    def name(self) -> str:
        """The name of the network."""
        return self._plan.name

    @property
    def num_io_tensors(self) -> int:
        """Number of inputs and outputs."""
        return len(self._names)

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self._plan.graph.nodes)

    @property
    def num_optimization_profiles(self) -> int:
        """Number of optimization profiles, at least 1."""
        return len(self._plan.profiles)

    @property
    def num_aux_streams(self) -> int:
        """Number of auxiliary streams: none."""
        return 0

    @property
    def refittable(self) -> bool:
        """Whether weights can be changed, by a :class:`Refitter`."""
        return self._plan.refittable

    @property
    def engine_capability(self) -> EngineCapability:
        """The runtime of TensorRT that it is for: STANDARD."""
        return EngineCapability.STANDARD

    @property
    def hardware_compatibility_level(self) -> HardwareCompatibilityLevel:
        """The other GPUs that it runs on, in TensorRT's terms: NONE, because it is not bound to a GPU."""
        return HardwareCompatibilityLevel.NONE

    @property
    def profiling_verbosity(self) -> ProfilingVerbosity:
        """How much it reveals about its layers: DETAILED."""
        return ProfilingVerbosity.DETAILED

    def __getitem__(self, arg0: int) -> str:
        return self._names[arg0]

    def get_tensor_name(self, index: int) -> str | None:
        """Return the name of an I/O tensor; inputs come first. None for an index out of range."""
        if 0 <= index < len(self._names):
            return self._names[index]
        self._misuse("getIOTensorName", f"index {index} is not in [0, {len(self._names)})")
        return None

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Return whether a tensor is an input or an output."""
        tensor = self._find("getTensorIOMode", name)
        if tensor is None:
            return TensorIOMode.NONE
        return TensorIOMode.INPUT if isinstance(tensor, InputTensor) else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        """Return a tensor's element type."""
        tensor = self._find("getTensorDataType", name)
        return DataType.FLOAT if tensor is None else TENSORRT_DTYPES[tensor.dtype]

    def get_tensor_shape(self, name: str) -> Dims:
        """Return a tensor's dimensions; -1 for a dimension that is known only at run time."""
        tensor = self._find("getTensorShape", name)
        return NO_DIMS if tensor is None else Dims(tensor.shape)

    def get_tensor_location(self, name: str) -> TensorLocation:
        """Return where a tensor's memory must be."""
        tensor = self._find("getTensorLocation", name)
        on_host = isinstance(tensor, InputTensor) and tensor.location == "host"
        return TensorLocation.HOST if on_host else TensorLocation.DEVICE

    def is_shape_inference_io(self, name: str) -> bool:
        """Return whether shape inference reads a tensor's values."""
        return self.get_tensor_location(name) is TensorLocation.HOST

    def get_tensor_format(self, name: str, profile_index: int = 0) -> TensorFormat:
        """Return a tensor's memory layout: LINEAR, contiguous and row-major."""
        self._find("getTensorFormat", name)
        return TensorFormat.LINEAR

    def get_tensor_format_desc(self, name: str, profile_index: int = 0) -> str:
        """Return a tensor's memory layout in words."""
        tensor = self._find("getTensorFormatDesc", name)
        return "" if tensor is None else f"Row major linear {TENSORRT_DTYPES[tensor.dtype].name} format"

    def get_tensor_bytes_per_component(self, name: str, profile_index: int = 0) -> int:
        """Return the size of an element in bytes; -1 for an unknown name."""
        tensor = self._find("getTensorBytesPerComponent", name)
        return -1 if tensor is None else tensor.dtype.itemsize

    def get_tensor_vectorized_dim(self, name: str, profile_index: int = 0) -> int:
        """Return the dimension along which elements are packed: -1, none."""
        self._find("getTensorVectorizedDim", name)
        return -1

    def get_aliased_input_tensor(self, name: str) -> str | None:
        """Return the input whose memory an output is written to; None for other outputs."""
        tensor = self._tensors.get(name)
        return tensor.aliased_input if isinstance(tensor, OutputTensor) else None

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        """Return the smallest, best and largest dimensions of an input under a profile."""
        number = self._loaded.input_numbers.get(name)
        if number is None or not self._has_profile(profile_index):
            self._misuse("getProfileShape", f"no input {name!r}, or no profile {profile_index}")
            return [NO_DIMS, NO_DIMS, NO_DIMS]
        return [Dims(sizes) for sizes in _triple(self._plan.profiles[profile_index].shapes[number])]

    def get_tensor_profile_values(self, name: int, profile_index: str) -> list[list[int]]:
        """Return the smallest, best and largest values of a shape tensor under a profile.

        Parameters
        ----------
        name : int
            The index of the profile: TensorRT has the names of these two parameters the wrong way round,
            so pass them by position.
        profile_index : str
            The name of the shape tensor.

        Returns
        -------
        list of list of int
            Three lists; empty if there is no such shape tensor or profile.
        """
        profile, tensor = name, profile_index
        number = self._loaded.input_numbers.get(tensor)
        if number is None or not self._has_profile(profile):
            self._misuse("getProfileTensorValuesV2", f"no input {tensor!r}, or no profile {profile}")
            return []
        values = self._plan.profiles[profile].values[number]
        return [] if values is None else [list(numbers) for numbers in _triple(values)]

    @property
    def device_memory_size_v2(self) -> int:
        """Bytes of scratch memory that a context needs, whatever its profile."""
        return max(self._loaded.scratch_bytes(profile) for profile in range(len(self._plan.profiles)))

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        """Return the bytes of scratch memory that a context needs under a profile."""
        if self._has_profile(profile_index):
            return self._loaded.scratch_bytes(profile_index)
        self._misuse("getDeviceMemorySizeForProfileV2", f"there is no profile {profile_index}")
        return 0

    @property
    def streamable_weights_size(self) -> int:
        """Bytes of the weights that can be streamed; 0 if the engine was not built for it."""
        return self._loaded.weights.streamable_size

    @property
    def weight_streaming_budget_v2(self) -> int:
        """Bytes of streamable weights that may stay on the device.

        The other weights are copied there in every run, which then waits for the device. A value above
        :attr:`streamable_weights_size` is reduced to it. A new value is refused, and an error is logged,
        while contexts exist, if it is negative, and for an engine without streamable weights.
        """
        return self._loaded.weights.budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, size: int) -> None:
        if self._loaded.context_count:
            reason = f"{self._loaded.context_count} execution contexts exist: delete them first"
        elif size < 0:
            reason = f"{size} is negative"
        elif not self.streamable_weights_size:
            reason = "the engine was built without streamable weights"
        else:
            self._loaded.weights.budget = size
            return
        self._misuse("setWeightStreamingBudgetV2", reason)

    def get_weight_streaming_automatic_budget(self) -> int:
        """Return a budget that uses at most half of the memory that is free on the device now."""
        size = self.streamable_weights_size
        if self._loaded.device.type == "cpu":
            return size
        free, _ = torch.cuda.mem_get_info(self._loaded.device)
        return min(size, self.weight_streaming_budget_v2 + free // 2)

    @property
    def weight_streaming_scratch_memory_size(self) -> int:
        """Bytes of scratch memory that streaming needs; the device memory size includes them."""
        return self._loaded.weights.scratch_size

    def create_execution_context(
        self,
        strategy: ExecutionContextAllocationStrategy
        | IRuntimeConfig = ExecutionContextAllocationStrategy.STATIC,
        runtime_config: IRuntimeConfig | None = None,
    ) -> IExecutionContext:
        """Make an execution context.

        Parameters
        ----------
        strategy : ExecutionContextAllocationStrategy
            With USER_MANAGED, every run fails until ``set_device_memory`` has provided enough memory.
        runtime_config : IRuntimeConfig, optional
            Instead of `strategy`; also accepted in its place.

        Returns
        -------
        IExecutionContext
            The context; it keeps the engine alive.
        """
        config = strategy if isinstance(strategy, IRuntimeConfig) else runtime_config
        if config is None:
            config = self.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)  # type: ignore[arg-type]
        return IExecutionContext(self._loaded, config, engine=self)

    def create_runtime_config(self) -> IRuntimeConfig:
        """Make the options of an execution context."""
        return IRuntimeConfig()

    def create_engine_inspector(self) -> EngineInspector:
        """Make an inspector of the engine."""
        return EngineInspector(self._loaded, engine=self)

    def create_serialization_config(self) -> ISerializationConfig:
        """Make the options of :meth:`serialize_with_config`."""
        return ISerializationConfig()

    def serialize(self) -> IHostMemory:
        """Return the plan."""
        return IHostMemory(self._loaded.serialized)

    def serialize_with_config(self, arg0: ISerializationConfig) -> IHostMemory | None:
        """Return the plan; for a plan without weights log an error and return None."""
        if arg0.get_flag(SerializationFlag.EXCLUDE_WEIGHTS):
            self._misuse("serializeWithConfig", "a reference plan cannot leave out its weights")
            return None
        return self.serialize()

    def _has_profile(self, index: int) -> bool:
        return 0 <= index < len(self._plan.profiles)

    def _find(self, call: str, name: str) -> InputTensor | OutputTensor | None:
        tensor = self._tensors.get(name)
        if tensor is None:
            self._misuse(call, f"{name!r} is not an I/O tensor; these are {list(self._names)}")
        return tensor

    def _misuse(self, call: str, reason: str) -> None:
        self._loaded.reporter.misuse(f"ICudaEngine::{call}", reason)


def _triple(sizes: Range) -> tuple[tuple[int, ...], ...]:
    return sizes.min, sizes.opt, sizes.max
