"""Choose a backend for the demonstration, and build its engine and its TensorRT-RTX plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.export import Dim, ExportedProgram

from trt_rt import compiler
from trt_rt.backend import BUILDERS, BackendStatus, first
from trt_rt.compiler import BuiltPlan, Profile
from trt_rt.demo.network import IMAGE_SHAPE
from trt_rt.errors import BackendError

__all__ = ["LARGEST_BATCH", "ChosenBackend", "build_plan", "choose_backend", "export_program"]

LARGEST_BATCH = 64

_INPUT_NAMES = ["images"]
_OUTPUT_NAMES = ["scores"]


@dataclass(frozen=True)
class ChosenBackend:
    """The backend that runs the demonstration.

    Attributes
    ----------
    backend : str
        Its name.
    reason : str
        In sentences, why it was chosen, and none that would be better.
    """

    backend: str
    reason: str


def choose_backend(statuses: Mapping[str, BackendStatus]) -> ChosenBackend:
    """Return the best backend that can build and run on this machine, and why.

    Raises
    ------
    BackendError
        There is none. The message gives the reason of each.
    """

    def why_not(name: str) -> str:
        status = statuses[name]
        return "" if status.can_build and status.can_run else status.reason

    choice = first(why_not, BUILDERS)
    passed_over = [f"Not {name}: {reason}" for name, reason in choice.passed_over.items()]
    if choice.name is None:
        raise BackendError(f"no backend can build and run an engine on this machine. {' '.join(passed_over)}")
    return ChosenBackend(choice.name, " ".join(["It is the best that can build and run here.", *passed_over]))


def export_program(network: torch.nn.Module) -> ExportedProgram:
    """Export the network with a batch dimension that varies from 1 to :data:`LARGEST_BATCH`."""
    images = torch.zeros(2, *IMAGE_SHAPE)
    return torch.export.export(
        network, (images,), dynamic_shapes={"images": {0: Dim("batch", min=1, max=LARGEST_BATCH)}}
    )


def build_plan(backend: str, program: ExportedProgram, device_type: str = "cuda") -> BuiltPlan:
    """Build the exported network.

    Parameters
    ----------
    backend : str
        The name of the backend that builds it.
    program : torch.export.ExportedProgram
        The result of :func:`export_program`.
    device_type : str
        "cuda" or "cpu". Only the reference backend runs on the CPU.

    Raises
    ------
    CompileError
        The backend cannot build it.
    """
    largest = (LARGEST_BATCH, *IMAGE_SHAPE)
    profile: Profile = {"images": ((1, *IMAGE_SHAPE), largest, largest)}
    return compiler.build_plan(
        program,
        profiles=[profile],
        backend=backend,
        input_names=_INPUT_NAMES,
        output_names=_OUTPUT_NAMES,
        device=device_type,
    )
