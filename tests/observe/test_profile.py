"""trt_rt.profile: what is in a trace, and what a trace leaves behind."""

from __future__ import annotations

import gzip
import json
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.profiler

from tests.isolated import run_python
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import Engine, TRTModule, enable_cudagraphs, enable_pre_allocated_outputs, explain, profile
from trt_rt.errors import InputError, SettingError


@pytest.fixture
def module() -> TRTModule:
    return TRTModule(Engine.from_bytes(plans.affine(), name="affine"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.json"


class TwoEngines(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = TRTModule(Engine.from_bytes(plans.affine(), name="first"))
        self.second = TRTModule(Engine.from_bytes(plans.affine(), name="second"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return result


def _events(path: Path) -> list[dict[str, Any]]:
    """The events of a trace, which are as Chrome's "Trace Event Format" says."""
    trace = json.loads(path.read_bytes())
    events: list[dict[str, Any]] = trace["traceEvents"]
    tracks: dict[Any, list[dict[str, Any]]] = {}
    for event in events:
        assert isinstance(event["name"], str)
        assert event["ph"] in "XMiBEbensftC"
        assert {"pid", "tid"} <= event.keys()
        if event["ph"] == "X":
            assert event["ts"] > 0
            assert event["dur"] >= 0
            tracks.setdefault((event["pid"], event["tid"]), []).append(event)
    for track in tracks.values():
        _check_nesting(track)
    return events


def _check_nesting(track: list[dict[str, Any]]) -> None:
    """Complete events of one track lie within each other or beside each other."""
    rounding = 0.002
    around: list[float] = []
    for event in sorted(track, key=lambda event: (event["ts"], -event["dur"])):
        while around and around[-1] <= event["ts"] + rounding:
            around.pop()
        end = event["ts"] + event["dur"]
        assert not around or end <= around[-1] + rounding, event
        around.append(end)


def _ours(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours = [event for event in events if event["ph"] == "X" and "kind" in event.get("args", {})]
    return sorted(ours, key=lambda event: event["ts"])


def _names(path: Path) -> list[str]:
    return [event["name"] for event in _ours(_events(path))]


def _within(outer: dict[str, Any], events: list[dict[str, Any]]) -> list[str]:
    begin, end = outer["ts"], outer["ts"] + outer["dur"]
    found = [
        event
        for event in events
        if event["ph"] == "X" and event["tid"] == outer["tid"] and begin < event["ts"] < end
    ]
    return [event["name"] for event in sorted(found, key=lambda event: event["ts"])]


def test_a_call_and_what_it_does(module: TRTModule, path: Path, x: torch.Tensor) -> None:
    module(x)
    with profile(module, path, layers=False) as trace:
        strided = x.t().contiguous().t()
        torch.testing.assert_close(trace(strided), eager_affine(x))
    assert trace.path == path
    events = _events(path)
    (call,) = [event for event in _ours(events) if event["args"]["kind"] == "call"]
    assert call["name"] == f"affine enqueue ({x.shape[0]}x{x.shape[1]})"
    assert call["args"]["careful_reads"] == 1
    within = _within(call, events)
    for name in ("affine copy x", "affine set_tensor_address x", "affine execute_async_v3", "aten::clone"):
        assert name in within
    assert "aten::t" not in within  # what the caller does is in the trace, outside of the call
    assert "aten::t" in {event["name"] for event in events}


def test_calls_of_all_kinds_are_named(module: TRTModule, path: Path, x: torch.Tensor) -> None:
    earlier = module.bind(x)
    with profile(module, path, layers=False):
        bound = module.bind(x)
        bound()
        earlier()
        module(x, out=torch.empty_like(x))
        module.executor(x)
    kinds = [event["args"]["kind"] for event in _ours(_events(path))]
    assert [kind for kind in kinds if kind in ("bind", "bound call", "call")] == [
        "bind",
        "bound call",
        "bound call",
        "call",
        "call",
    ]


def test_graphs_stay_and_their_replays_are_named(module: TRTModule, path: Path, x: torch.Tensor) -> None:
    with enable_pre_allocated_outputs(module), enable_cudagraphs(module):
        module(x)
        with profile(module, path):
            torch.testing.assert_close(module(x), eager_affine(x))
            module(x[:1])
        module(x)
        stats = module.stats()
        assert (stats["captures"], stats["replays"]) == (2, 2)
    calls = [event for event in _ours(_events(path)) if event["args"]["kind"] == "call"]
    shape = f"{x.shape[0]}x{x.shape[1]}"
    names = [f"affine replay ({shape})", f"affine capture (1x{x.shape[1]})"]
    assert [event["name"] for event in calls] == names
    assert not _layers(_events(path))  # TensorRT cannot time layers of a graph


def _layers(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event.get("cat") == "trt_rt layer"]


def test_layers_are_drawn_in_their_order(module: TRTModule, path: Path, x: torch.Tensor) -> None:
    with profile(module, path):
        module(x)
        module(x)
    events = _events(path)
    layers = _layers(events)
    names = [layer["name"] for layer in layers]
    assert len(names) == 2 * len(set(names)) >= 6
    assert any("relu" in name for name in names)
    for one, other in pairwise(layers):
        assert one["ts"] + one["dur"] <= other["ts"] + 0.002
    runs = [event["ts"] for event in _ours(events) if event["args"]["kind"] == "execute_async_v3"]
    assert [layers[0]["ts"], layers[len(set(names))]["ts"]] == runs
    (track,) = {layer["tid"] for layer in layers}
    assert {"name": "thread_name", "tid": track}.items() <= next(
        event for event in events if event["ph"] == "M" and event["tid"] == track
    ).items()


def test_programs_and_threads(path: Path, x: torch.Tensor) -> None:
    program = TwoEngines()
    with profile(program, path, layers=False):
        threads = [threading.Thread(target=program, args=(x,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events = _events(path)
    programs = [event for event in _ours(events) if event["args"]["kind"] == "program"]
    assert len({event["tid"] for event in programs}) == 2
    for event in programs:
        within = _within(event, events)
        names = [name for name in within if "enqueue" in name or name == "aten::tanh"]
        engines = [name.split()[0] for name in names]
        assert engines[0] == "first"
        assert engines[-1] == "second"
        assert "aten::tanh" in engines


def test_a_program_that_is_one_graph(path: Path, x: torch.Tensor) -> None:
    with enable_cudagraphs(TwoEngines(), whole_graph=True) as program:
        program(x)
        with profile(program, path, layers=False):
            program(x)
        assert program.stats()["replays"] == 1
        program(x)
        assert program.stats()["replays"] == 2
    assert _names(path)[0] == "TwoEngines replay"


def test_a_compressed_trace(module: TRTModule, tmp_path: Path, x: torch.Tensor) -> None:
    with profile(module, tmp_path / "trace.json.gz", layers=False):
        module(x)
    trace = json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes()))
    assert any(event["name"].startswith("affine enqueue") for event in trace["traceEvents"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_recorded_is_kept(
    module: TRTModule, path: Path, x: torch.Tensor, error: type[BaseException]
) -> None:
    with pytest.raises(error), profile(module, path):  # noqa: PT012
        module(x)
        with pytest.raises(InputError):
            module(x[0, 0])
        raise error
    calls = [event for event in _ours(_events(path)) if event["args"]["kind"] == "call"]
    assert [event["args"].get("raised") for event in calls] == [None, "InputValueError"]
    torch.testing.assert_close(module(x), eager_affine(x))


def test_an_interrupt_within_a_call(path: Path, x: torch.Tensor) -> None:
    program = TwoEngines()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = program.second.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt), profile(program, path, layers=False):
        program(x)
    assert any(name.startswith("first enqueue") for name in _names(path))
    handle.remove()
    assert not program._forward_hooks
    assert not program._forward_pre_hooks
    torch.testing.assert_close(program(x), eager_affine(torch.tanh(eager_affine(x))))


def test_a_file_that_cannot_be_written_is_refused_before_the_run(module: TRTModule, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "trace.json"):
        with pytest.raises(OSError, match="folder"), profile(module, path):
            pytest.fail("the block ran")
    assert not torch.autograd.profiler._is_profiler_enabled
    assert module.executor.observer is None


def test_two_recordings_at_once_are_refused(module: TRTModule, path: Path, x: torch.Tensor) -> None:
    with profile(module, path, layers=False):
        with pytest.raises(SettingError, match="another profile"), profile(module, path):
            pytest.fail("the block ran")
        module(x)
    assert _names(path)
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]),
        pytest.raises(SettingError, match="profiler of PyTorch"),
        profile(module, path),
    ):
        pytest.fail("the block ran")


def test_graphs_are_refused_while_layers_are_timed(module: TRTModule, path: Path) -> None:
    with profile(module, path), pytest.raises(SettingError, match="layers=False"), enable_cudagraphs(module):
        pytest.fail("the block ran")
    with profile(module, path, layers=False), enable_cudagraphs(module):
        assert module.executors.uses_cuda_graphs


def test_observers_nest_in_any_order(module: TRTModule, path: Path, x: torch.Tensor) -> None:
    recording = profile(module, path, layers=False)
    recording.__enter__()
    assert explain(module, x).engines[0].served == "enqueue"
    module(x)
    recording.__exit__(None, None, None)
    assert sum(name.startswith("affine enqueue") for name in _names(path)) == 2
    assert module.executor.observer is None


def test_nothing_is_left_behind(module: TRTModule, path: Path, x: torch.Tensor) -> None:
    module(x)
    bound = module.bind(x)
    context = module.executor.context
    with profile(module, path, layers=False):
        module(x)
        assert module.executor.context is not context
    assert module.executor.context is context
    assert module.executor.observer is None
    size = path.stat().st_size
    module(x)
    torch.testing.assert_close(bound(), eager_affine(x))
    assert path.stat().st_size == size


def test_threads_that_record_at_once_take_turns(tmp_path: Path) -> None:
    """In a process of its own: PyTorch's profiler ends the process if two threads start it at once."""
    script = """
import sys, threading
import torch
from tests.reference import plans
from trt_rt import Engine, TRTModule, profile
from trt_rt.errors import SettingError

module = TRTModule(Engine.from_bytes(plans.affine(), name="affine"))
x, written, refused, wrong = torch.randn(3, 7), [], [], []
def record(number):
    for turn in range(20):
        path = f"{sys.argv[1]}/{number}-{turn}.json"
        try:
            with profile(module, path, layers=False):
                module(x)
            written.append(path)
        except SettingError:
            refused.append(path)
        except BaseException as error:
            wrong.append(error)
threads = [threading.Thread(target=record, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not wrong, wrong
assert written and len(written) + len(refused) == 80
with profile(module, f"{sys.argv[1]}/last.json"):
    module(x)
"""
    ran = run_python(script, tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    for path in tmp_path.glob("*.json"):
        assert json.loads(path.read_bytes())["traceEvents"]
