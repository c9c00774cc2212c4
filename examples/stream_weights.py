"""An engine whose weights do not fit: a part of them stays in host memory and is copied in every call.

Run it: python examples/stream_weights.py
"""

import torch

import trt_rt
from trt_rt import reference

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
network = (
    torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.ReLU(), torch.nn.Linear(512, 8)).to(device).eval()
)
x = torch.randn(4, 64, device=device)
# With TensorRT's own builder: trt_rt.build(..., weight_streaming=True).
plan = reference.build(network, (x,), streamable_weights=True, device=device.type)

with trt_rt.Engine.from_bytes(plan, device=device) as engine, torch.inference_mode():
    module = trt_rt.TRTModule(engine)
    expected = network(x)
    with trt_rt.weight_streaming(module) as streaming:
        total = streaming.total_device_budget
        for share in (1.0, 0.5, 0.0):
            streaming.device_budget = int(total * share)
            torch.testing.assert_close(module(x), expected, rtol=1e-3, atol=1e-3)
            print(f"{streaming.device_budget:>8,} of {total:,} bytes of weights stay on the device: right")
    # The budget of before is back: all weights are on the device.
    torch.testing.assert_close(module(x), expected, rtol=1e-3, atol=1e-3)
