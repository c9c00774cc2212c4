"""The model that Triton's Python backend runs: a program, called with requests that the server has joined.

Triton imports this through the ``model.py`` that `export_triton` writes, in a process of its own for each
instance. ``triton_python_backend_utils`` exists in that process only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import torch

from trt_rt.archive import load
from trt_rt.errors import InputError, TRTError
from trt_rt.integrations.batching import run_batches
from trt_rt.integrations.interface import ProgramInterface, TensorInterface, without_plan

__all__ = ["TritonPythonModel"]


class TritonPythonModel:
    """One instance of a model: `initialize`, then `execute` for each list of requests, then `finalize`.

    Notes
    -----
    The methods and their arguments are those of Triton's Python backend.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Load the program ``model.pt2`` of the model's version.

        Parameters
        ----------
        args : dict
            Of Triton: the model's folder and version, its configuration as JSON, and the instance's device.
        """
        import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

        self._utils: Any = pb_utils
        folder = os.path.join(args["model_repository"], args["model_version"])
        on_gpu = args["model_instance_kind"] == "GPU"
        self._device = (
            torch.device("cuda", int(args["model_instance_device_id"])) if on_gpu else torch.device("cpu")
        )
        self._program = load(os.path.join(folder, "model.pt2"), device=self._device)
        self._interface = ProgramInterface.of(self._program.exported(keep_plan=without_plan))
        self._has_batches = json.loads(args["model_config"])["max_batch_size"] > 0

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Run the program for the requests that Triton has chosen to run together.

        Parameters
        ----------
        requests : sequence of pb_utils.InferenceRequest
            Of equal shapes, but for the batch.

        Returns
        -------
        list of pb_utils.InferenceResponse
            One for each request, with an error where the program refused it.
        """
        inputs = [self._inputs(request) for request in requests]
        results = run_batches(self._program, self._interface, inputs, join=self._has_batches)
        if self._device.type == "cuda":
            # Triton reads the results on streams of its own.
            torch.cuda.current_stream(self._device).synchronize()
        return [self._response(result) for result in results]

    def finalize(self) -> None:
        """Free the program."""
        del self._program

    def _inputs(self, request: Any) -> dict[str, torch.Tensor]:
        return {each.name: self._input(request, each) for each in self._interface.inputs}

    def _input(self, request: Any, description: TensorInterface) -> torch.Tensor:
        found = self._utils.get_input_tensor_by_name(request, description.name)
        tensor = torch.utils.dlpack.from_dlpack(found.to_dlpack()).to(self._device)
        # Triton has no tensors without dimensions.
        return tensor if description.shape else tensor.reshape(())

    def _response(self, result: dict[str, torch.Tensor] | TRTError) -> Any:
        utils = self._utils
        if isinstance(result, TRTError):
            code = (
                utils.TritonError.INVALID_ARG
                if isinstance(result, InputError)
                else utils.TritonError.INTERNAL
            )
            return utils.InferenceResponse(error=utils.TritonError(str(result), code))
        return utils.InferenceResponse(
            output_tensors=[
                utils.Tensor.from_dlpack(each.name, _in_c_order(result[each.name]))
                for each in self._interface.outputs
            ]
        )


def _in_c_order(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as Triton takes it: with a dimension at least, and with strides in C order.

    For PyTorch, any strides are contiguous where a size is 0 or 1. Triton compares all of them.
    """
    return tensor.reshape(-1).view(tensor.shape or (1,))
