"""TensorRT-RTX's runtime settings.

TensorRT-RTX compiles an engine's kernels when they first run. Its ``IRuntimeConfig`` says when and how.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

from trt_rt.backend.kernel_caches import KernelCaches

__all__ = ["RuntimeSettings", "has_runtime_settings", "make_runtime_config"]

Specialization = Literal["lazy", "eager", "none"]
GraphStrategy = Literal["disabled", "whole_graph_capture"]


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """Settings of TensorRT-RTX that apply when an engine runs, under Torch-TensorRT's names.

    Give them to ``TRTModule(settings=...)``, assign them to ``module.runtime_settings``, or change single
    ones for a time with `trt_rt.runtime.runtime_config`. Only TensorRT-RTX has them: other backends raise
    BackendError.

    Attributes
    ----------
    runtime_cache : path or None
        A file of compiled kernels. It is read when the first execution context is made. It is written when
        the engine is closed or collected, when the process exits, and by `Engine.save_runtime_cache`. A file
        that TensorRT-RTX does not accept is ignored with a warning, and is replaced by the next write.
        Processes may share a file: each replaces it in one step, and the last one wins. Default: None, no
        file.
    dynamic_shapes_kernel_specialization_strategy : {"lazy", "eager", "none"}
        When kernels for new shapes are compiled: in the background while a general kernel runs, before the
        first run, or never. Default: "lazy".
    cuda_graph_strategy : {"disabled", "whole_graph_capture"}
        Whether TensorRT-RTX captures each engine in a CUDA graph of its own. Default: "disabled".

    Raises
    ------
    ValueError
        A strategy does not exist.

    Notes
    -----
    An engine whose calls trt_rt captures (`enable_cudagraphs`) compiles its kernels eagerly for the capture,
    and TensorRT-RTX's own graphs are off for it: a graph keeps the kernels that it was captured with, and one
    capture cannot contain another.

    Examples
    --------
    >>> import trt_rt
    >>> settings = trt_rt.RuntimeSettings(runtime_cache="kernels.bin")
    >>> settings.dynamic_shapes_kernel_specialization_strategy
    'lazy'
    """

    runtime_cache: str | os.PathLike[str] | None = None
    dynamic_shapes_kernel_specialization_strategy: Specialization = "lazy"
    cuda_graph_strategy: GraphStrategy = "disabled"

    def __post_init__(self) -> None:
        if self.runtime_cache is not None and not isinstance(self.runtime_cache, (str, os.PathLike)):
            raise TypeError(f"runtime_cache={self.runtime_cache!r}: give the path of a file, or None.")
        for field, allowed in (
            ("dynamic_shapes_kernel_specialization_strategy", get_args(Specialization)),
            ("cuda_graph_strategy", get_args(GraphStrategy)),
        ):
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(f"{field}={value!r}: choose one of {', '.join(map(repr, allowed))}.")


def has_runtime_settings(api: Any) -> bool:
    """Return whether a TensorRT has these settings. Others have ``IRuntimeConfig`` without them."""
    return all(
        hasattr(api, name)
        for name in ("IRuntimeCache", "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy")
    )


def make_runtime_config(
    api: Any, engine: Any, settings: RuntimeSettings, caches: KernelCaches, *, for_capture: bool
) -> Any:
    """Return an ``IRuntimeConfig`` with the settings, for one execution context.

    Parameters
    ----------
    api : module
        TensorRT-RTX's Python module.
    engine : ICudaEngine
        The engine of the context.
    settings : RuntimeSettings
        The user's settings.
    caches : KernelCaches
        The kernel caches of the engine.
    for_capture : bool
        Whether the context's runs are captured in a CUDA graph.
    """
    config = engine.create_runtime_config()
    specialization = settings.dynamic_shapes_kernel_specialization_strategy
    graphs = settings.cuda_graph_strategy
    if for_capture:
        specialization = "none" if specialization == "none" else "eager"
        graphs = "disabled"
    config.dynamic_shapes_kernel_specialization_strategy = getattr(
        api.DynamicShapesKernelSpecializationStrategy, specialization.upper()
    )
    config.cuda_graph_strategy = getattr(api.CudaGraphStrategy, graphs.upper())
    if settings.runtime_cache is not None:
        cache = caches.open(settings.runtime_cache, config.create_runtime_cache)
        if not config.set_runtime_cache(cache):
            warnings.warn(
                f"TensorRT-RTX does not use the kernel cache {os.fspath(settings.runtime_cache)!r}.",
                RuntimeWarning,
                stacklevel=2,
            )
    return config
