"""Time calls of engines from plan files: python bench/real_engines.py --plans DIR.

Every way to call an engine takes its turn in every round, in one process. A call starts when the GPU has
finished the one before; it is timed until it returns and until its work is done.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measure
import torch
import torch_tensorrt_calls
from driver_floors import GraphLaunch
from prepared_call import PreparedCall

import trt_rt
from tests.factories.plan_folder import VARIABLE, PlainCalls, inputs_for, plan_files
from trt_rt._core.garbage_collection import without_garbage_collection
from trt_rt._core.processor_name import processor_name
from trt_rt._core.timed_calls import time_calls

ENGINES = ("relu", "cnn", "bert")
BATCHES = (1, 8)
WARM_UP_CALLS = 50
CALLS_A_TURN = 20
UNTIMED_CALLS_A_TURN = 2  # they take back the caches from the row before

ENQUEUE, LAUNCH = "execute_async_v3", "graph_launch"


@dataclass(frozen=True)
class Row:
    """One way to call an engine.

    Attributes
    ----------
    name : str
        In the table.
    floor : str
        Name of the row that does the least that such a call must do.
    call : PreparedCall
        With the inputs at hand.
    result : callable
        From what a call returned to the list of outputs.
    turn : callable
        A context that is entered for the row's turns.
    """

    name: str
    floor: str
    call: PreparedCall
    result: Callable[[Any], Sequence[torch.Tensor]]
    turn: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass
class Samples:
    """Nanoseconds of single calls."""

    returned: array[int] = field(default_factory=lambda: array("q"))
    done: array[int] = field(default_factory=lambda: array("q"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", help=f"folder with *.plan files; default: the variable {VARIABLE}")
    parser.add_argument("--engines", nargs="+", default=ENGINES, help="names of plan files, without .plan")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument(
        "--device", default="cuda", help="cuda, cuda:N, or cpu for plans of the reference backend"
    )
    parser.add_argument("--rounds", type=int, default=101, help=f"each of {CALLS_A_TURN} timed calls a row")
    parser.add_argument("--note", help="a sentence for the head of the tables")
    parser.add_argument("--markdown", type=Path, help="file to write the tables to, besides printing them")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("bench/real_engines.py: PyTorch sees no CUDA device on this machine", file=sys.stderr)
        return 2
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
    paths = {path.stem: path for path in plan_files(options.plans)}
    if missing := [name for name in options.engines if name not in paths]:
        print(f"bench/real_engines.py: no plans named {missing}; there are {sorted(paths)}", file=sys.stderr)
        return 2
    measure.use_own_stream(device)
    parts = [describe_run(device, options.rounds, options.note)]
    for name in options.engines:
        for batch in options.batches:
            parts.append(
                table(f"{name}, batch {batch}", *time_engine(paths[name], batch, device, options.rounds))
            )
            print(parts[-1], "\n", flush=True)
    print(parts[0])
    if options.markdown:
        options.markdown.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return 0


def time_engine(
    path: Path, batch: int, device: torch.device, rounds: int
) -> tuple[list[Row], dict[str, Samples]]:
    """Every row of one engine at one batch, checked against a plain run of it and then timed."""
    with ExitStack() as stack:
        engine = stack.enter_context(trt_rt.Engine.load(path, device=device))
        inputs = inputs_for(engine, batch)
        if inputs is None:
            raise ValueError(f"no profile of {path} admits batch {batch}")
        expected = plain_calls(engine, path)(inputs, dtypes(engine))
        rows = [*floors(engine, path, inputs), *ways(stack, engine, inputs)]
        if device.type == "cuda":
            rows += map(peer_row, torch_tensorrt_calls.calls(path.read_bytes(), engine, inputs))
        for row in rows:
            check(row, expected)
        return rows, time_rows(rows, device, rounds)


def plain_calls(engine: trt_rt.Engine, path: Path) -> PlainCalls:
    return PlainCalls(engine.api, path.read_bytes(), engine.device)


def dtypes(engine: trt_rt.Engine) -> tuple[torch.dtype, ...]:
    return tuple(tensor.dtype for tensor in engine.outputs)


def floors(engine: trt_rt.Engine, path: Path, inputs: tuple[torch.Tensor, ...]) -> Iterator[Row]:
    """Yield the calls that no runtime can do without, and the loop that most projects write."""
    bare, captured, by_hand = (plain_calls(engine, path) for _ in range(3))
    for context in (bare, captured, by_hand):
        context.choose_profile(inputs)
    outputs = bare.bind(inputs, dtypes(engine))
    enqueue = PreparedCall(bare.context.execute_async_v3, (bare.stream,))
    yield Row(ENQUEUE, ENQUEUE, enqueue, lambda _: outputs)
    if engine.device.type == "cuda":
        written = captured.bind(inputs, dtypes(engine))
        assert captured.context.execute_async_v3(captured.stream)  # some engines refuse to be captured before
        torch.cuda.synchronize(engine.device)
        launch = GraphLaunch(captured.context, captured.stream)
        # The graph refers to memory of the context.
        yield Row(LAUNCH, LAUNCH, PreparedCall(launch.launch), lambda _, _kept=captured: written)

    def loop(*tensors: torch.Tensor) -> list[torch.Tensor]:
        results = by_hand.bind(tensors, output_dtypes)
        if not by_hand.context.execute_async_v3(by_hand.stream):
            raise RuntimeError("execute_async_v3 failed")
        return results

    output_dtypes = dtypes(engine)
    yield Row("loop by hand", ENQUEUE, PreparedCall(loop, inputs), list)


def ways(stack: ExitStack, engine: trt_rt.Engine, inputs: tuple[torch.Tensor, ...]) -> Iterator[Row]:
    """Every way to call an engine through trt_rt."""

    def module(*controls: Callable[[torch.nn.Module], AbstractContextManager[Any]]) -> trt_rt.TRTModule:
        made = trt_rt.TRTModule(engine)
        for control in controls:
            stack.enter_context(control(made))
        return made

    pre_allocated, graphs = trt_rt.enable_pre_allocated_outputs, trt_rt.enable_cudagraphs
    into = module()
    out = as_list(into(*inputs))
    keywords = {"out": out[0] if len(out) == 1 else tuple(out)}
    for name, floor, prepared in (
        ("module", ENQUEUE, PreparedCall(module(), inputs)),
        ("module, pre-allocated", ENQUEUE, PreparedCall(module(pre_allocated), inputs)),
        ("module, out=", ENQUEUE, PreparedCall(into, inputs, keywords=keywords)),
        ("bind", ENQUEUE, PreparedCall(module().bind(*inputs))),
        ("module, graphs", LAUNCH, PreparedCall(module(graphs), inputs)),
        ("module, graphs, pre-allocated", LAUNCH, PreparedCall(module(pre_allocated, graphs), inputs)),
        ("bind, graphs", LAUNCH, PreparedCall(module(graphs).bind(*inputs))),
    ):
        yield Row(f"trt_rt: {name}", floor, prepared, as_list)
    program = torch.nn.Sequential(module(pre_allocated)) if len(inputs) == 1 else module(pre_allocated)
    whole = stack.enter_context(trt_rt.enable_cudagraphs(program, whole_graph=True))
    yield Row("trt_rt: program as one graph, pre-allocated", LAUNCH, PreparedCall(whole, inputs), as_list)


def as_list(result: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def peer_row(call: torch_tensorrt_calls.Call) -> Row:
    floor = LAUNCH if call.uses_graphs else ENQUEUE
    return Row(f"Torch-TensorRT: {call.name}", floor, call.prepared, as_list, call.turn)


def check(row: Row, expected: Sequence[torch.Tensor]) -> None:
    """Refuse to time a call whose outputs are wrong; graphs exist after a few calls."""
    with row.turn():
        for _ in range(3):
            outputs = row.result(row.call())
        if outputs and outputs[0].is_cuda:
            torch.cuda.synchronize()
        for output, wanted in zip(outputs, expected, strict=True):
            torch.testing.assert_close(output, wanted, msg=lambda text: f"{row.name}: {text}")


def time_rows(rows: Sequence[Row], device: torch.device, rounds: int) -> dict[str, Samples]:
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None
    samples = {row.name: Samples() for row in rows}
    for row in rows:
        with row.turn():
            row.call.repeat(WARM_UP_CALLS)

    def take_turns() -> None:
        for _ in range(rounds):
            for row in rows:
                with row.turn():
                    row.call.repeat(UNTIMED_CALLS_A_TURN)
                    measure.synchronize(device)
                    returned, done = time_calls(row.call, CALLS_A_TURN, stream=stream)
                samples[row.name].returned.extend(returned)
                samples[row.name].done.extend(done)

    gc.collect()
    without_garbage_collection(take_turns)
    return samples


def describe_run(device: torch.device, rounds: int, note: str | None) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    lines = [
        f"Device: {name}; processor: {processor_name()}; Python {platform.python_version()}, PyTorch "
        f"{torch.__version__}, trt_rt {trt_rt.__version__}, {torch_tensorrt_calls.description()}.",
        f"{rounds} interleaved rounds of {CALLS_A_TURN} calls a row, after {UNTIMED_CALLS_A_TURN} that are "
        "not timed; each call starts with an idle GPU. Median and 99th percentile of single calls, in µs. In "
        "brackets: what the median adds to the median of the row's floor, which is "
        f"`{LAUNCH}` with graphs and `{ENQUEUE}` without.",
    ]
    return "\n".join(lines + ([note] if note else []))


def table(title: str, rows: Sequence[Row], samples: dict[str, Samples]) -> str:
    lines = [
        f"### {title}",
        "",
        "| call | until it returns | p99 | until the GPU is done | p99 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        own = samples[row.name]
        floor = samples[row.floor] if row.floor in samples and row.floor != row.name else None
        cells = [
            *median_and_tail(own.returned, floor and floor.returned),
            *median_and_tail(own.done, floor and floor.done),
        ]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def median_and_tail(taken: array[int], floor: array[int] | None) -> tuple[str, str]:
    middle = statistics.median(taken)
    added = f" ({(middle - statistics.median(floor)) / 1000:+.1f})" if floor else ""
    return f"{middle / 1000:.1f}{added}", f"{statistics.quantiles(taken, n=100)[-1] / 1000:.1f}"


if __name__ == "__main__":
    sys.exit(main())
