"""The loop that most projects write around an execution context, as the yardstick for a runtime."""

from __future__ import annotations

import null_engine
import torch


class HandWrittenLoop:
    """Set every shape and address, ask for output shapes, allocate, enqueue; at every call."""

    def __init__(self, context: null_engine.IExecutionContext, device: torch.device) -> None:
        self.context = context
        self.device = device
        engine = context.engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == null_engine.TensorIOMode.INPUT for name in names}
        self.input_names = [name for name in names if is_input[name]]
        self.output_names = [name for name in names if not is_input[name]]

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        context = self.context
        for name, tensor in zip(self.input_names, inputs, strict=True):
            context.set_input_shape(name, tuple(tensor.shape))
            context.set_tensor_address(name, tensor.data_ptr())
        outputs = []
        for name in self.output_names:
            shape = tuple(context.get_tensor_shape(name))
            output = torch.empty(shape, dtype=torch.float32, device=self.device)
            context.set_tensor_address(name, output.data_ptr())
            outputs.append(output)
        stream = torch.cuda.current_stream().cuda_stream if self.device.type == "cuda" else 0
        if not context.execute_async_v3(stream):
            raise RuntimeError("execute_async_v3 failed")
        return outputs
