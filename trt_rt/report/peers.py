"""Other ways to run a model: eager PyTorch, torch.compile, ONNX Runtime, Torch-TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trt_rt.errors import BackendError
from trt_rt.report.target import Peer, Workload

__all__ = ["eager", "onnx_runtime", "torch_compile", "torch_tensorrt"]


def eager(model: torch.nn.Module) -> Peer:
    """Return eager PyTorch."""
    return Peer("eager PyTorch", partial(_call, model))


def torch_compile(model: torch.nn.Module) -> Peer:
    """Return ``torch.compile`` with PyTorch's own default backend."""

    def make(workload: Workload) -> Callable[[], Any]:
        torch._dynamo.reset()
        return _call(torch.compile(model), workload)

    return Peer("torch.compile", make)


def torch_tensorrt(model: torch.nn.Module) -> Peer:
    """Return Torch-TensorRT, where it is installed."""

    def make(workload: Workload) -> Callable[[], Any]:
        try:
            import torch_tensorrt as peer
        except ImportError as error:
            raise BackendError("Torch-TensorRT is not installed.") from error
        compiled = peer.compile(
            model, ir="dynamo", arg_inputs=workload.arguments, kwarg_inputs=dict(workload.keywords)
        )
        return _call(compiled, workload)

    return Peer("Torch-TensorRT", make)


def onnx_runtime(path: Path, names: tuple[str, ...]) -> Peer:
    """Return ONNX Runtime with bound inputs and outputs, where it is installed.

    Parameters
    ----------
    path : Path
        The model.
    names : tuple of str
        Of the inputs, in the order of a workload's arguments.
    """

    def make(workload: Workload) -> Callable[[], Any]:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError("ONNX Runtime is not installed.") from error
        tensors = dict(zip(names, workload.arguments, strict=True))
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        providers = ["CUDAExecutionProvider"] if on_gpu else ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(path), providers=providers)
        binding = session.io_binding()
        for name, tensor in tensors.items():
            binding.bind_input(
                name,
                "cuda" if tensor.is_cuda else "cpu",
                tensor.get_device() if tensor.is_cuda else 0,
                _numpy_dtype(tensor),
                tuple(tensor.shape),
                tensor.data_ptr(),
            )
        for output in session.get_outputs():
            binding.bind_output(output.name, "cuda" if on_gpu else "cpu")
        return partial(_run_bound, session, binding, tensors)

    return Peer("ONNX Runtime", make)


def _run_bound(session: Any, binding: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Run; `tensors` keep the memory that is bound."""
    session.run_with_iobinding(binding)


def _numpy_dtype(tensor: torch.Tensor) -> Any:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype


def _call(model: Callable[..., Any], workload: Workload) -> Callable[[], Any]:
    return partial(model, *workload.arguments, **workload.keywords)
