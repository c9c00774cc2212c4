"""A loop that must answer quickly: everything is set up before the first answer is due.

Run it: python examples/latency_loop.py
"""

import time

import torch

import trt_rt

CALLS = 1000

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 8)).eval()
# On a machine with TensorRT: trt_rt.Engine.load("model.plan").
plan = trt_rt.build(network.to(device), (torch.zeros(1, 64, device=device),), backend="reference")

with trt_rt.Engine.from_bytes(plan, device=device) as engine, torch.inference_mode():
    module = trt_rt.TRTModule(engine)
    request = torch.zeros(1, 64, device=device)  # every request is copied in here
    with trt_rt.enable_cudagraphs(module):
        answer = module.bind(request)  # all addresses are set, once
        for _ in range(20):
            answer()  # the graph is captured, and clocks rise
        taken = []
        for number in range(CALLS):
            start = time.perf_counter_ns()
            request.fill_(number / CALLS)
            result = answer()  # overwrites the tensors of the last answer
            if device.type == "cuda":
                torch.cuda.current_stream().synchronize()  # for a caller that reads the answer at once
            taken.append((time.perf_counter_ns() - start) / 1000)
    torch.testing.assert_close(result, network(request), rtol=1e-3, atol=1e-3)

taken.sort()
print(f"{CALLS} answers: median {taken[CALLS // 2]:.1f} µs, 99 % within {taken[CALLS * 99 // 100]:.1f} µs")
