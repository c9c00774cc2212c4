"""The ways of calling an engine that the demonstration compares, next to eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import torch

import trt_rt
from trt_rt.demo.network import NUM_CLASSES

__all__ = ["EAGER", "Mode", "make_modes"]

EAGER = "eager PyTorch"
"""The name of the first mode, with which the others are compared."""

Call: TypeAlias = Callable[[], torch.Tensor]


class Mode(NamedTuple):
    """One way of running the network.

    Attributes
    ----------
    name : str
        Its name in the report.
    prepare : callable
        Takes images (N, 1, 8, 8) and returns a call without arguments that runs them and returns the
        scores (N, 10). The scores may be overwritten by the next call of the same mode.
    """

    name: str
    prepare: Callable[[torch.Tensor], Call]


def make_modes(network: torch.nn.Module, engine: trt_rt.Engine) -> list[Mode]:
    """Return eager PyTorch first, then every mode of a :class:`trt_rt.TRTModule` over `engine`.

    Each mode has a module of its own, so that measuring them in turn switches nothing.
    """
    pre_allocated = trt_rt.TRTModule(engine)
    pre_allocated.set_pre_allocated_outputs(True)
    graphed, graphed_pre_allocated = trt_rt.TRTModule(engine), trt_rt.TRTModule(engine)
    graphed.configure(cuda_graphs=True)
    graphed_pre_allocated.configure(cuda_graphs=True, pre_allocated_outputs=1)
    return [
        Mode(EAGER, partial(_call_with_images, network)),
        Mode("fresh outputs", partial(_call_with_images, trt_rt.TRTModule(engine))),
        Mode("pre-allocated outputs", partial(_call_with_images, pre_allocated)),
        Mode("caller's out=", partial(_call_with_out, trt_rt.TRTModule(engine))),
        Mode("bind", partial(_bind, trt_rt.TRTModule(engine))),
        Mode("CUDA graphs", partial(_call_with_images, graphed)),
        Mode("CUDA graphs, pre-allocated", partial(_call_with_images, graphed_pre_allocated)),
    ]


def _call_with_images(module: torch.nn.Module, images: torch.Tensor) -> Call:
    return partial(module, images)


def _call_with_out(module: trt_rt.TRTModule, images: torch.Tensor) -> Call:
    return partial(module, images, out=images.new_empty(len(images), NUM_CLASSES))


def _bind(module: trt_rt.TRTModule, images: torch.Tensor) -> Call:
    # The engine reads this memory at each call, so its address must be aligned. The address of a fresh tensor
    # is; on the CPU the images are in NumPy's memory, whose address may not be.
    return module.bind(images.clone())
