"""Several engines at once: each runs on a CUDA stream of its own, and their results meet at the end.

Run it: python examples/several_streams.py
"""

from contextlib import nullcontext

import torch

import trt_rt

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = device.type == "cuda"


def detector(seed: int) -> torch.nn.Module:
    """Return one of several networks that look at the same picture."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(5)
    )


picture = torch.rand(1, 3, 16, 16, device=device)
networks = [detector(seed).to(device).eval() for seed in range(3)]
with torch.no_grad():
    expected = [network(picture) for network in networks]  # a lazy layer gets its size here

engines = [
    trt_rt.Engine.from_bytes(trt_rt.build(network, (picture,), backend="reference"), device=device)
    for network in networks
]
modules = [trt_rt.TRTModule(engine) for engine in engines]
streams = [torch.cuda.Stream() if on_gpu else None for _ in modules]

results = []
with torch.inference_mode():
    for module, stream in zip(modules, streams, strict=True):
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream())  # the picture is ready
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            results.append(module(picture))  # returns at once: the host goes on to the next engine
    for result, stream in zip(results, streams, strict=True):
        if stream is not None:
            torch.cuda.current_stream().wait_stream(stream)
            result.record_stream(torch.cuda.current_stream())  # its memory was allocated for the other stream
    together = torch.stack(results).mean(0)

torch.testing.assert_close(together, torch.stack(expected).mean(0), rtol=1e-3, atol=1e-3)
for engine in engines:
    engine.close()
print(f"{len(modules)} engines on {'streams of their own' if on_gpu else 'the CPU'} agree with PyTorch")
