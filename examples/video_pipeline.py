"""A video pipeline: while one frame is shown, the next is computed into another set of outputs.

Run it: python examples/video_pipeline.py
"""

import queue
import threading

import torch

import trt_rt

FRAMES, WAITING = 50, 2

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 1)
).eval()
plan = trt_rt.build(network.to(device), (torch.zeros(1, 3, 32, 32, device=device),), backend="reference")

finished: queue.Queue[tuple[torch.Tensor, torch.cuda.Event | None] | None] = queue.Queue(maxsize=WAITING)
brightness: list[float] = []


def show() -> None:
    """Take frames as they come. The frame in hand and those that wait are still whole."""
    while (item := finished.get()) is not None:
        frame, event = item
        if event is not None:
            event.synchronize()
        brightness.append(float(frame.mean()))


screen = threading.Thread(target=show)
screen.start()
with trt_rt.Engine.from_bytes(plan, device=device) as engine, torch.inference_mode():
    module = trt_rt.TRTModule(engine)
    # A set of outputs for each frame in the queue, for the one on the screen, and for the one in work.
    with trt_rt.enable_pre_allocated_outputs(module, buffers=WAITING + 2):
        for number in range(FRAMES):
            frame = module(torch.full((1, 3, 32, 32), number / FRAMES, device=device))
            event = torch.cuda.current_stream().record_event() if device.type == "cuda" else None
            finished.put((frame, event))  # waits while the screen is behind
        finished.put(None)
        screen.join()
    expected = [
        float(network(torch.full((1, 3, 32, 32), n / FRAMES, device=device)).mean()) for n in range(FRAMES)
    ]

torch.testing.assert_close(torch.tensor(brightness), torch.tensor(expected), rtol=1e-3, atol=1e-3)
print(f"{FRAMES} frames, each shown as it was computed, in {WAITING + 2} sets of outputs")
