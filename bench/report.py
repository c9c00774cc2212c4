"""Measure calls, and print a Markdown table: python bench/report.py [--device cuda] [--markdown FILE]."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import measure
import torch
from measure import Timing
from scenarios import Scenario, scenarios_for
from thread_scaling import thread_table

import trt_rt
from trt_rt._core.processor_name import processor_name

BARE = "bare_1x1"
ALLOCATIONS = ("torch_empty", "torch_empty_like", "empty_strided")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--rounds", type=int, default=101, help="interleaved rounds; the median is reported")
    parser.add_argument("--markdown", type=Path, help="file to write the tables to, besides printing them")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            print("bench/report.py: PyTorch sees no CUDA device on this machine", file=sys.stderr)
            return 2
        device = torch.device("cuda", device.index or 0)
    measure.use_own_stream(device)
    scenarios = scenarios_for(device.type)
    timings = measure.time_interleaved(scenarios, device, options.rounds)
    text = markdown(device, scenarios, timings, options.rounds) + "\n\n" + thread_table(device)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    return 0


def markdown(device: torch.device, scenarios: list[Scenario], timings: dict[str, Timing], rounds: int) -> str:
    """Return all tables of a run, one for each group, and the differences that trt_rt's targets limit."""
    parts = [describe_run(device, rounds)]
    for group in dict.fromkeys(scenario.group for scenario in scenarios):
        members = [scenario.name for scenario in scenarios if scenario.group == group]
        parts.append(group_table(group, members, timings))
    parts.append(difference_table(timings, on_gpu=device.type == "cuda"))
    return "\n\n".join(parts)


def describe_run(device: torch.device, rounds: int) -> str:
    if device.type == "cuda":
        engine = "an enqueue launches one empty kernel"
        name = torch.cuda.get_device_name(device)
    else:
        engine = "an enqueue does nothing"
        name = "no GPU"
    return (
        f"Device: {name}; processor: {processor_name()}; Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, trt_rt {trt_rt.__version__}.\n"
        f"Null engine: {engine}. Median of {rounds} interleaved rounds of "
        f"{measure.CALLS_PER_ROUND[device.type]} calls, made from a loop in C; the ratio is to `{BARE}`, the "
        "bound `execute_async_v3` alone, in the same round."
    )


def group_table(group: str, names: list[str], timings: dict[str, Timing]) -> str:
    lines = [
        f"### {group}",
        "",
        "| call | µs | 10 to 90 % of rounds | to bare call |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in names:
        low, high = timings[name].spread
        ratio = timings[name].ratio(timings[BARE])
        lines.append(f"| `{name}` | {timings[name].median:.3f} | {low:.3f} to {high:.3f} | {ratio:.2f} |")
    return "\n".join(lines)


def difference_table(timings: dict[str, Timing], *, on_gpu: bool) -> str:
    """Return the table of what trt_rt adds, with the targets, which are for a GPU."""
    bare = timings[BARE]
    cheapest = min(ALLOCATIONS, key=lambda name: timings[name].median)
    fresh_floor = bare + timings[cheapest] + timings["set_tensor_address"]
    rows: list[tuple[str, float, float | None]] = [
        ("`bind` over the bare call", timings["bind_1x1"].over(bare), 0.3),
        ("executor, pre-allocated, over the bare call", timings["executor_prealloc_1x1"].over(bare), 0.8),
        ("module, pre-allocated, over the bare call", timings["module_prealloc_1x1"].over(bare), 0.8),
        (
            f"module, fresh, over bare call + `{cheapest}` + `set_tensor_address`",
            timings["module_fresh_1x1"].over(fresh_floor),
            1.0,
        ),
        (
            "hand-written loop over the bare call",
            timings["hand_written_1x1"].over(bare),
            None,
        ),
    ]
    if on_gpu:
        launch, copy = timings["graph_launch"], timings["async_copy"]
        rows += [
            ("graphs, `bind`, over `cuGraphLaunch`", timings["graph_bind_1x1"].over(launch), 0.4),
            (
                "graphs, module, pre-allocated, over `cuGraphLaunch`",
                timings["graph_module_prealloc_1x1"].over(launch),
                1.0,
            ),
            (
                "graphs, addresses that churn, over `cuGraphLaunch` + `cuMemcpyAsync`",
                timings["graph_module_prealloc_churn"].over(launch + copy),
                0.6,
            ),
            (
                "4 inputs and outputs over 1 and 1, graphs, pre-allocated",
                timings["graph_module_prealloc_4x4"].over(timings["graph_module_prealloc_1x1"]),
                2.0,
            ),
            (
                "4 inputs and outputs over 1 and 1, pre-allocated",
                timings["module_prealloc_4x4"].over(timings["module_prealloc_1x1"]),
                2.0,
            ),
            (
                "one graph of a program, static inputs, pre-allocated, over `cuGraphLaunch`",
                timings["program_graph_static_prealloc"].over(launch),
                0.6,
            ),
            (
                "one graph of a program, pre-allocated, over `cuGraphLaunch`",
                timings["program_graph_prealloc"].over(launch),
                1.0,
            ),
            (
                f"one graph of a program, fresh, over `cuGraphLaunch` + `{cheapest}`",
                timings["program_graph_fresh"].over(launch + timings[cheapest]),
                1.0,
            ),
            (
                "one graph of a program, 1,000 parameters more",
                timings["program_graph_1000_parameters"].over(timings["program_graph_prealloc"]),
                10.0,
            ),
            (
                "one graph of a program, 1,000 parameters more, frozen",
                timings["program_graph_1000_frozen"].over(timings["program_graph_prealloc"]),
                None,
            ),
        ]
    lines = [
        "### What is added, 1 input and 1 output",
        "",
        "| difference | µs | target on a GPU | result |",
        "| --- | ---: | ---: | --- |",
    ]
    for label, added, target in rows:
        wanted = "none" if target is None else f"≤ {target}"
        if target is None:
            verdict = "no target"
        elif not on_gpu:
            verdict = "not on a CPU"
        else:
            verdict = "met" if added <= target else "**missed**"
        lines.append(f"| {label} | {added:.3f} | {wanted} | {verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
