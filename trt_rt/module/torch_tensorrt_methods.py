"""The methods of Torch-TensorRT's modules, under their names, in terms of a module's own settings."""

from __future__ import annotations

import json
import operator
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex

import torch

from trt_rt._core.call import Executor
from trt_rt.engine import Engine
from trt_rt.errors import SettingError
from trt_rt.module.composition import refuse_if, settings_change
from trt_rt.module.counts import checked_count
from trt_rt.module.executors import ModuleExecutors
from trt_rt.module.flags import checked_flag

if TYPE_CHECKING:
    from trt_rt.module.layer_profile import LayerProfile

__all__ = ["TorchTensorRTMethods"]


class _Module(Protocol):
    """The part of `TRTModule` that these methods use."""

    name: str

    @property
    def engine(self) -> Engine: ...

    @property
    def executor(self) -> Executor: ...

    @property
    def executors(self) -> ModuleExecutors: ...

    def configure(self, **settings: Any) -> None: ...


def _switch_profiler_on(module: _Module, profiler: Any) -> None:
    refuse_if([module], "enable_profiling")
    module.executors.change(profiler=profiler)


class TorchTensorRTMethods:
    """Methods of `TRTModule` for code that was written for Torch-TensorRT's modules."""

    def set_use_output_allocator(self: _Module, enable: bool) -> None:
        """Let TensorRT allocate every output, or only those whose size depends on data.

        Parameters
        ----------
        enable : bool
            The same as ``configure(output_allocator=enable)``.

        Raises
        ------
        SettingError
            If `enable`, and CUDA graphs are on.
        """
        self.configure(output_allocator=enable)

    def set_pre_allocated_outputs(self: _Module, enable: bool, *, buffers: int = 1) -> None:
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
            If `enable` is not a bool, or `buffers` is no integer. Nothing is changed in either case.

        Notes
        -----
        Outputs that TensorRT allocates, and those that lie in an input's memory, are not affected.
        """
        count = checked_count("buffers", buffers, "sets of outputs") if checked_flag("enable", enable) else 0
        # Off first, so that results which callers hold keep their memory even if the mode was on already.
        self.executors.change(pre_allocated_outputs=0)
        if count:
            self.executors.change(pre_allocated_outputs=count)

    def use_dynamically_allocated_resources(self: _Module, dynamically_allocate_resources: bool) -> None:
        """Size scratch memory for the shapes in use, or for the largest shapes.

        Parameters
        ----------
        dynamically_allocate_resources : bool
            The same as ``configure(dynamic_resources=...)``.
        """
        self.configure(dynamic_resources=dynamically_allocate_resources)

    def set_optimization_profile(self: _Module, profile: SupportsIndex | str | None) -> None:
        """Choose the optimization profile that calls run with.

        Parameters
        ----------
        profile : int, "auto" or None
            The same as ``configure(optimization_profile=profile)``.

        Raises
        ------
        SettingError
            If the engine has no such profile.
        TypeError
            If it is neither a number, "auto" nor None.
        """
        self.configure(optimization_profile=profile)

    @property
    def active_optimization_profile(self: _Module) -> int | None:
        """The optimization profile of the calling stream's last call.

        Before the first one, after one that failed and after a change of settings, the one that was chosen;
        None if none was.
        """
        used = self.executor.optimization_profile
        return self.executors.modes.optimization_profile if used is None else used

    @property
    def serialized_engine(self: _Module) -> bytes:
        """The plan; the same as ``engine.serialize()``."""
        return self.engine.serialize()

    def get_layer_info(self: _Module) -> str:
        """Return what TensorRT's engine inspector says of the layers, as JSON; see `Engine.inspect`.

        Raises
        ------
        BackendError
            If the backend has no inspector.
        ClosedError
            If the engine was closed.
        """
        return json.dumps(self.engine.inspect())

    def enable_profiling(self: _Module) -> LayerProfile:
        """Time every layer from the next call on, until `disable_profiling`.

        Returns
        -------
        LayerProfile
            The times; see `trt_rt.enable_profiling`, which does the same for a ``with`` block.

        Raises
        ------
        SettingError
            If CUDA graphs are on.
        """
        from trt_rt.module.layer_profile import LayerProfile, new_profiler  # only profiled modules need it

        assert isinstance(self, torch.nn.Module)
        profiler = new_profiler(self.engine.api, self.name)
        settings_change.run(_switch_profiler_on, self, profiler)
        return LayerProfile(self, [profiler])

    def disable_profiling(self: _Module) -> None:
        """Time layers no more. The times so far stay readable."""
        self.executors.change(profiler=None)

    def get_device_memory_budget(self: _Module) -> int:
        """Return how many bytes of the streamable weights stay on the device."""
        return self.engine.weight_streaming_budget

    def get_streamable_device_memory_budget(self: _Module) -> int:
        """Return the bytes of all weights that can be streamed; with this budget none is."""
        return self.engine.streamable_weights_size

    def get_automatic_device_memory_budget(self: _Module) -> int:
        """Return a budget that TensorRT finds fitting for the memory that is free on the device now."""
        return min(self.engine.weight_budget.automatic(), self.engine.streamable_weights_size)

    def set_device_memory_budget(self: _Module, budget_bytes: SupportsIndex) -> int:
        """Choose how many bytes of the streamable weights stay on the device, for every module over them.

        Parameters
        ----------
        budget_bytes : int
            More than all streamable weights counts as all.

        Returns
        -------
        int
            The budget in force.

        Raises
        ------
        SettingError
            If `budget_bytes` is negative. Also a ValueError and a RuntimeError.
        TypeError
            If it is no integer.
        ExecutionError
            If TensorRT refuses.
        """
        budget = operator.index(budget_bytes)
        if budget < 0:
            raise SettingError(
                f"budget_bytes={budget}: a budget is from 0 bytes (stream all weights) to "
                f"{self.engine.streamable_weights_size} (stream none)."
            )
        self.engine.set_weight_streaming_budget(min(budget, self.engine.streamable_weights_size))
        return self.engine.weight_streaming_budget
