"""A loaded plan, which an engine shares with its contexts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import torch

from trt_rt._core.live_objects import LiveObjects
from trt_rt.errors import ExecutionError, PlanError
from trt_rt.reference.dtypes import TENSORRT_DTYPES
from trt_rt.reference.logger import Reporter
from trt_rt.reference.plan import Plan, address_alignment, pack_plan, unpack_plan
from trt_rt.reference.plan_container import aligned_copy
from trt_rt.reference.profiles import Profile
from trt_rt.reference.program import Program
from trt_rt.reference.shape_inference import InferredShapes, infer_shapes
from trt_rt.reference.weights import WeightStore

__all__ = ["LoadedEngine", "load"]


class LoadedEngine:
    """A plan, its network and its weights on one device.

    Attributes
    ----------
    plan, program, weights, device
        The network and its device.
    reporter : Reporter
        Receives its messages.
    input_numbers, output_numbers : dict
        Position of each input and output, by name.
    """

    def __init__(self, plan: Plan, content: memoryview, serialized: memoryview, reporter: Reporter) -> None:
        self.plan = plan
        self._serialized: memoryview | bytes = serialized  # weights on the CPU lie in it
        self._content = content
        self.reporter = reporter
        self.device = _device(plan)
        self.program = Program(plan)
        self.weights = WeightStore(plan, content, self.device, on_device=self.program.weights_on_device)
        self._contexts: LiveObjects[object] = LiveObjects()
        self.input_numbers = {tensor.name: number for number, tensor in enumerate(plan.inputs)}
        self.output_numbers = {tensor.name: number for number, tensor in enumerate(plan.outputs)}

    def register_context(self, context: object) -> None:
        """Count an execution context for as long as it exists."""
        self._contexts.add(context)

    @property
    def context_count(self) -> int:
        """Number of execution contexts that exist."""
        return len(list(self._contexts))

    @property
    def alignment(self) -> int:
        """Bytes to which addresses of device tensors must be aligned."""
        return address_alignment(self.plan.device)

    @property
    def has_aliases(self) -> bool:
        """Whether an output is written into the memory of an input."""
        return any(tensor.aliased_input is not None for tensor in self.plan.outputs)

    @property
    def refittable(self) -> dict[str, int]:
        """Numbers of the weights that can be changed, by name."""
        fixed = self.program.weights_on_host
        return {
            weight.name: number
            for number, weight in enumerate(self.plan.weights)
            if self.plan.refittable
            and weight.name is not None
            and weight.dtype in TENSORRT_DTYPES
            and number not in fixed
        }

    def refit(self, values: Mapping[int, torch.Tensor]) -> None:
        """Change weights, by number, to values of the same shape and dtype. No run may be in progress."""
        self.weights.refit(values)
        contents = [
            self._content[weight.offset : weight.offset + weight.nbytes] for weight in self.plan.weights
        ]
        self._serialized = pack_plan(self.plan, contents)

    @property
    def serialized(self) -> memoryview | bytes:
        """The plan, with the weights as they are now."""
        return self._serialized

    def infer(
        self, shapes: tuple[tuple[int, ...], ...], shape_tensors: dict[int, torch.Tensor]
    ) -> InferredShapes:
        """Infer shapes and memory from input shapes and the values of shape tensors."""
        return infer_shapes(self.plan, self.program, self.weights, shapes, shape_tensors)

    def infer_profile(self, profile: Profile, which: str) -> InferredShapes:
        """Infer shapes and memory from the ``min``, ``opt`` or ``max`` of a profile."""
        tensors = {
            number: torch.tensor(getattr(values, which), dtype=tensor.dtype, device="cpu").reshape(
                tensor.shape
            )
            for number, (tensor, values) in enumerate(zip(self.plan.inputs, profile.values, strict=True))
            if values is not None
        }
        return self.infer(tuple(getattr(shapes, which) for shapes in profile.shapes), tensors)

    def check(self) -> None:
        """Check by inference that the network makes the dtypes and shapes that the plan declares.

        Raises
        ------
        PlanError
            It does not with the shapes of a profile, neither the best nor the extreme ones.
        """
        for profile in self.plan.profiles:
            try:
                inferred = self._infer_any(profile)
            except ExecutionError as error:
                raise PlanError(f"the network does not fit what the plan declares: {error}") from error
            for tensor, shape in zip(self.plan.outputs, inferred.outputs, strict=True):
                if -1 in shape and not tensor.data_dependent:
                    raise PlanError(
                        f"the shape of output {tensor.name!r} depends on data, and the plan says otherwise"
                    )

    def _infer_any(self, profile: Profile) -> InferredShapes:
        """Infer from the best shapes of a profile, or from others if the network refuses those."""
        try:
            return self.infer_profile(profile, "opt")
        except ExecutionError as error:
            for which in ("min", "max"):
                with suppress(ExecutionError):
                    return self.infer_profile(profile, which)
            raise error

    def scratch_bytes(self, profile: int) -> int:
        """Bytes that a context needs at the largest shapes of a profile."""
        return self.plan.profiles[profile].scratch_bytes + self.weights.scratch_size


def load(serialized: memoryview, reporter: Reporter) -> LoadedEngine:
    """Load a plan on its device: the CPU, or the current CUDA device.

    Parameters
    ----------
    serialized : memoryview
        The plan; copied.
    reporter : Reporter
        Receives the engine's messages.

    Raises
    ------
    PlanError
        The plan is malformed, or this machine lacks its device.
    """
    copy = aligned_copy(serialized)
    plan, content = unpack_plan(copy)
    return LoadedEngine(plan, content, copy, reporter)


def _device(plan: Plan) -> torch.device:
    if plan.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise PlanError(
            "the plan was built with device='cuda' and PyTorch sees no CUDA device here: "
            "build it with device='cpu', or load it where there is a GPU"
        )
    return torch.device("cuda", torch.cuda.current_device())
