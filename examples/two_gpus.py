"""One engine on each of two GPUs, each called by a thread of its own; with fewer GPUs, both share a device.

Run it: python examples/two_gpus.py
"""

import threading

import torch

import trt_rt

count = torch.cuda.device_count()
devices = [
    torch.device("cuda", min(index, count - 1)) if count else torch.device("cpu") for index in range(2)
]
network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4)).eval()
example = torch.zeros(1, 8)
batch = torch.randn(64, 8)
size = torch.export.Dim("batch", min=1, max=64)
results: list[torch.Tensor | None] = [None, None]


def serve(index: int) -> None:
    """Load the engine on one device and run half of the batch there."""
    device = devices[index]
    placed = network.to(device) if count else network
    with lock:  # PyTorch's export is for one thread at a time
        plan = trt_rt.build(
            placed,
            (example.to(device).expand(2, 8).contiguous(),),
            dynamic_shapes=({0: size},),
            backend="reference",
        )
    with trt_rt.Engine.from_bytes(plan, device=device) as engine, torch.inference_mode():
        module = trt_rt.TRTModule(engine)
        # In case that a caller's tensors are on the current device, and not on the engine's.
        with trt_rt.set_multi_device_safe_mode(True):
            half = batch.chunk(2)[index].to(device)
            results[index] = module(half).cpu()


lock = threading.Lock()
threads = [threading.Thread(target=serve, args=(index,)) for index in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
halves = [half for half in results if half is not None]
torch.testing.assert_close(torch.cat(halves), network.cpu()(batch), rtol=1e-3, atol=1e-3)
print(f"half of the batch on {devices[0]}, half on {devices[1]}: right")
