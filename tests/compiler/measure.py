"""Times of export and build for docs/backends.md: python -m tests.compiler.measure"""

from __future__ import annotations

import torch

from tests.compiler.networks import NETWORKS
from trt_rt.compiler import BuildOptions, build_plan

EXAMPLE_BATCH = 3


def main() -> None:
    # The first export imports what the others find in memory.
    build_plan(torch.nn.ReLU(), (torch.ones(2, 2),), backend="tensorrt_rtx")
    print("| network | precision | export (s) | build (s) | plan (bytes) |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name, network in NETWORKS.items():
        for precision in ("fp32", network.low_precision):
            built = build_plan(
                network.make(),
                kwarg_inputs=network.inputs(EXAMPLE_BATCH),
                dynamic_shapes=network.dynamic_shapes,
                backend="tensorrt_rtx",
                options=BuildOptions(precision=precision),
            )
            times = f"{built.export_seconds:.2f} | {built.build_seconds:.2f} | {len(built.plan):,}"
            print(f"| {name} | {precision} | {times} |")


if __name__ == "__main__":
    main()
