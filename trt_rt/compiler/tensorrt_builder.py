"""The build of a plan from ONNX, with TensorRT's ONNX parser and builder.

``tensorrt`` and ``tensorrt_rtx`` share this code, because their Python modules have the same classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from trt_rt._core.driver import device_count
from trt_rt._core.io_tensor import IOTensor
from trt_rt.backend import Backend
from trt_rt.compiler.build_log import collect_errors
from trt_rt.compiler.builder_config import apply_options
from trt_rt.compiler.cancellation import run_cancellable
from trt_rt.compiler.network_io import network_io
from trt_rt.compiler.onnx_model import OnnxModel
from trt_rt.compiler.options import BuildOptions
from trt_rt.compiler.parser_errors import describe_parser_errors
from trt_rt.compiler.profiles import Profile, add_profile
from trt_rt.compiler.progress import Display, make_monitor, progress_display
from trt_rt.compiler.timing_cache import attach_timing_cache, store_timing_cache
from trt_rt.errors import CompileError

__all__ = ["BuiltNetwork", "build_from_onnx", "run_builder"]


@dataclass(frozen=True)
class BuiltNetwork:
    """A plan that TensorRT's builder made, and its I/O tensors.

    Attributes
    ----------
    plan : bytes
        The serialized engine.
    io : tuple of IOTensor
        The I/O tensors of the network that the builder was given, inputs first.
    """

    plan: bytes
    io: tuple[IOTensor, ...]


def build_from_onnx(
    model: OnnxModel,
    backend: Backend,
    *,
    profiles: Sequence[Profile] = (),
    options: BuildOptions | None = None,
    weak_flag: Any = None,
) -> BuiltNetwork:
    """Build a plan from an ONNX model.

    Parameters
    ----------
    model : OnnxModel
        The model.
    backend : Backend
        A backend with TensorRT's builder: ``trt_rt.backend.load("tensorrt")``, or ``"tensorrt_rtx"``.
    profiles : sequence of Profile
        Optimization profiles in the order of their indices. Needed if an input has dynamic dimensions.
    options : BuildOptions, optional
        Default: ``BuildOptions()``. Its precision is not used: the model has it already, or `weak_flag` does.
    weak_flag : BuilderFlag, optional
        The precision that the builder may use besides float32, in a weakly typed network.

    Returns
    -------
    BuiltNetwork
        ``tensorrt`` needs a GPU for this, ``tensorrt_rtx`` does not.

    Raises
    ------
    CompileError
        The model is not ONNX, holds a node that TensorRT does not support (the message names node, operator
        and, where the exporter kept it, the line of the model), a profile does not fit the inputs, the
        backend lacks an option, or the builder refuses the network.
    KeyboardInterrupt
        Ctrl-C: after the builder has ended, at its next step.
    """
    options = options or BuildOptions()
    cancelled = Event()
    with progress_display(options.progress) as display:
        return run_cancellable(
            lambda: run_builder(model, backend, profiles, options, weak_flag, display, cancelled), cancelled
        )


def run_builder(
    model: OnnxModel,
    backend: Backend,
    profiles: Sequence[Profile],
    options: BuildOptions,
    weak_flag: Any,
    display: Display,
    cancelled: Event,
) -> BuiltNetwork:
    """Build in this thread. The parameters are those of :func:`build_from_onnx` and the following.

    Parameters
    ----------
    display : Display
        Receives each phase.
    cancelled : threading.Event
        Set it to end the build at the next step, with CompileError.
    """
    api = backend.api
    # The builder calls the monitor until the builder is destroyed, so the monitor must be destroyed last.
    monitor = make_monitor(api, display, cancelled)
    with collect_errors() as logged:
        builder = api.Builder(backend.log.ilogger)
        network = builder.create_network(_network_flags(api, strongly_typed=weak_flag is None))
        _parse(model, network, backend)
        config = builder.create_builder_config()
        if weak_flag is not None:
            config.set_flag(weak_flag)
        apply_options(options, config, backend)
        for index, profile in enumerate(profiles):
            add_profile(profile, index, builder, network, config)
        if options.timing_cache is not None:
            attach_timing_cache(options.timing_cache, config, backend.name)
        if monitor is not None:
            config.progress_monitor = monitor
        io = network_io(network, profiles)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CompileError(_why_refused(backend, logged, options))
    if options.timing_cache is not None:
        store_timing_cache(options.timing_cache, config, backend.name)
    return BuiltNetwork(bytes(plan), io)


def _network_flags(api: Any, *, strongly_typed: bool) -> int:
    """Return the flags of a network, which is strongly typed unless a weak precision was chosen."""
    return 1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if strongly_typed else 0


def _parse(model: OnnxModel, network: Any, backend: Backend) -> None:
    parser = backend.api.OnnxParser(network, backend.log.ilogger)
    if not model.parse_with(parser):
        raise CompileError(f"{backend.name} cannot parse {model}: {describe_parser_errors(parser, model)}")
    if network.num_outputs == 0:
        raise CompileError(
            f"{model} has no outputs, so there is nothing to build; it may be empty or truncated"
        )


def _why_refused(backend: Backend, logged: Sequence[str], options: BuildOptions) -> str:
    sentences = [
        f"{backend.name} {backend.version} refused to build the network: "
        + ("; ".join(logged) or "it logged no reason").rstrip(". ")
    ]
    given = options.in_words()
    if given:
        sentences.append(f"The build was asked for {given}: try other values, or without")
    count, why = device_count()
    if count == 0 and "cuda" in sentences[0].lower():
        sentences.append(f"It called CUDA, and no GPU can be used here: {why}")
    return ". ".join(sentences)
