"""Measurements: every mode, what is left out, what an interrupt keeps, and results on disk."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from array import array
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

pytest.importorskip("hdrh", reason="the package hdrhistogram is not installed")

import trt_rt
from tests.reference import plans
from trt_rt import report
from trt_rt.errors import ExecutionError, InputError, SettingError
from trt_rt.report.modes import Call
from trt_rt.report.noise import notes_about
from trt_rt.report.samples import Samples
from trt_rt.report.shapes import make_inputs, parse_shapes, shapes_of_batch

QUICK = report.BenchSettings(timing=report.Timing(duration=0.01, warm_up=0.05), threads=(1, 2))


@pytest.fixture
def engine() -> Any:
    with trt_rt.Engine.from_bytes(plans.affine(), name="affine") as engine:
        yield engine


@pytest.fixture
def target(engine: trt_rt.Engine) -> report.EngineTarget:
    return report.EngineTarget(engine, "affine.plan")


@pytest.fixture
def result(target: report.EngineTarget) -> report.Result:
    return report.bench(target, [target.workload({})], QUICK)


def test_every_mode_of_an_engine_is_measured(result: report.Result) -> None:
    assert [case.mode for case in result.cases] == [mode.name for mode in report.MODES]
    assert not result.skipped
    for case in result.cases:
        assert 0 < case.host.least <= case.host.median <= case.host.p99 <= case.host.most
        assert case.host.low <= case.host.high
        assert case.host.calls >= QUICK.timing.iterations
    assert [level.threads for level in result.concurrency] == [1, 2]
    assert all(level.calls_per_second > 0 for level in result.concurrency)
    assert result.memory is not None
    assert result.memory.outputs > 0
    assert result.machine["cores"] >= 1


def test_modes_that_an_engine_does_not_have_are_left_out_with_the_reason() -> None:
    with trt_rt.Engine.from_bytes(plans.nonzero()) as engine:
        target = report.EngineTarget(engine, "nonzero")
        result = report.bench(target, [target.workload({})], dataclasses.replace(QUICK, threads=()))
    assert "fresh" in [case.mode for case in result.cases]
    assert "graphs" in result.skipped
    assert "depends on data" in result.skipped["graphs"] or "data" in result.skipped["graphs"]
    assert not result.concurrency


def test_no_mode_left_is_an_error(target: report.EngineTarget) -> None:
    def refuse(*_: Any) -> Call:
        raise SettingError("not today")

    mode = dataclasses.replace(report.find_mode("fresh"), prepare=refuse)
    with pytest.raises(SettingError, match="fresh: not today"):
        report.bench(target, [target.workload({})], dataclasses.replace(QUICK, modes=[mode]))


def test_times_of_wrong_results_are_not_reported(target: report.EngineTarget) -> None:
    def wrong(module: torch.nn.Module, given: Any, workload: report.Workload) -> Call:
        return Call(lambda *arguments: module(*arguments) + 1, workload.arguments)

    modes = [report.find_mode("fresh"), dataclasses.replace(report.find_mode("out"), prepare=wrong)]
    with pytest.raises(ExecutionError, match="mode 'out' differ"):
        report.bench(target, [target.workload({})], dataclasses.replace(QUICK, modes=modes))


def test_a_peer_that_is_missing_is_left_out(engine: trt_rt.Engine) -> None:
    def missing(workload: report.Workload) -> Any:
        raise ImportError("there is no such package")

    peers = [report.Peer("eager", lambda workload: lambda: plans.eager_affine(*workload.arguments))]
    target = report.EngineTarget(engine, "affine", [*peers, report.Peer("absent", missing)])
    result = report.bench(target, [target.workload({})], dataclasses.replace(QUICK, threads=()))
    assert [case.mode for case in result.cases if case.is_peer] == ["eager"]
    assert result.skipped == {"absent": "ImportError: there is no such package"}


def test_an_interrupt_keeps_what_was_measured(target: report.EngineTarget) -> None:
    shares = []

    def interrupt(share: float) -> None:
        shares.append(share)
        if share > 0.3:  # the warm-up is over
            raise KeyboardInterrupt

    result = report.bench(target, [target.workload({})], QUICK, progress=interrupt)
    assert result.interrupted
    assert len(result.cases) == len(report.MODES)
    assert all(case.host.calls >= 1 for case in result.cases)
    assert not result.concurrency
    assert shares == sorted(shares)
    # The modes were left: nothing of them stays on the engine's next module.
    assert not trt_rt.get_cudagraphs_mode()


def test_an_error_in_a_thread_is_raised(engine: trt_rt.Engine) -> None:
    from trt_rt.report.throughput import measure_throughput

    def broken() -> Any:
        raise InputError("no such input")

    with pytest.raises(InputError, match="no such input"):
        measure_throughput(lambda: Call(broken), "x", torch.device("cpu"), [2], 0.01)


def test_every_thread_calls_however_late_it_is() -> None:
    """A thread that the machine lets run only when its time is over has a rate, too."""
    from trt_rt.report.throughput import measure_throughput

    (level,) = measure_throughput(lambda: Call(int), "x", torch.device("cpu"), [2], 0.0)
    assert level.calls_per_second > 0


def test_a_result_survives_the_disk(result: report.Result, tmp_path: Path) -> None:
    report.write_result(result, tmp_path / "r.json")
    assert report.read_result(tmp_path / "r.json") == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON that"),
        ("[]", "no JSON that"),
        ('{"cases": []}', "no JSON that"),
        ('{"format": 99}', "format 99"),
        ('{"format": 1}', "damaged"),
        ('{"format": 1, "engines": [], "cases": [{"host": {}}]}', "damaged"),
    ],
)
def test_other_files_are_no_results(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(SettingError, match=message):
        report.read_result(tmp_path / "r.json")


def _slower(result: report.Result, factor: float) -> report.Result:
    def scaled(times: report.Times) -> report.Times:
        names = ("median", "low", "high")
        return dataclasses.replace(times, **{name: getattr(times, name) * factor for name in names})

    cases = tuple(dataclasses.replace(case, host=scaled(case.host)) for case in result.cases)
    return dataclasses.replace(result, cases=cases)


def test_a_change_is_a_share_with_its_noise(result: report.Result) -> None:
    steady = dataclasses.replace(
        result,
        cases=tuple(
            dataclasses.replace(case, host=dataclasses.replace(case.host, median=10.0, low=9.9, high=10.1))
            for case in result.cases
        ),
    )
    (change, *_) = report.compare(steady, _slower(steady, 1.2))
    assert change.change == pytest.approx(0.2)
    assert change.low == pytest.approx(9.9 * 1.2 / 10.1 - 1)
    assert change.is_slower_than(0.1)
    assert not change.is_slower_than(0.25)
    (change, *_) = report.compare(steady, _slower(steady, 1.01))
    assert not change.is_slower_than(0.005)  # the intervals overlap
    (change, *_) = report.compare(steady, _slower(steady, 0.5))
    assert not change.is_slower_than(0.0)


def test_results_of_other_machines_are_not_compared(result: report.Result) -> None:
    other = dataclasses.replace(result, machine=result.machine | {"gpu": "another"})
    with pytest.raises(SettingError, match="gpu 'another' and None"):
        report.compare(other, result)
    with pytest.raises(SettingError, match="no mode and shapes in common"):
        report.compare(dataclasses.replace(result, cases=()), result)


def test_samples_are_those_of_all_calls() -> None:
    samples = Samples(clock_cost=100)
    samples.add(array("q", [1_100, 2_100, 3_100]))
    samples.add(array("q", [4_100, 5_100, 50]))
    times = samples.times()
    assert times.calls == 6
    assert (times.least, times.most) == (0.001, pytest.approx(5.0, rel=0.01))
    assert times.median == pytest.approx(2.0, rel=0.01)
    assert times.round_medians == (2.0, 4.0)
    assert 2.0 <= times.low <= times.high <= 4.0
    percentiles, microseconds = times.curve
    assert percentiles[0] == 0
    assert microseconds == sorted(microseconds)
    assert microseconds[-1] == pytest.approx(5.0, rel=0.01)


def test_percentiles_agree_with_numpy() -> None:
    random = numpy.random.default_rng(0)
    samples = Samples()
    nanoseconds = random.lognormal(9, 0.5, 10_000).astype(numpy.int64)
    samples.add(array("q", nanoseconds.tolist()))
    times = samples.times()
    for name, percentile in (("median", 50), ("p90", 90), ("p99", 99), ("p99_9", 99.9)):
        assert getattr(times, name) == pytest.approx(
            numpy.percentile(nanoseconds, percentile) / 1000, rel=0.01
        )


def test_noise_is_told(result: report.Result) -> None:
    calm = {"governor": "performance", "load": 0.0, "cores": 8}
    times = dataclasses.replace(
        result.cases[0].host,
        median=10.0,
        low=9.9,
        high=10.1,
        round_medians=(10.0, 10.1, 9.9, 10.0, 10.1, 9.9),
    )
    case = dataclasses.replace(result.cases[0], host=times)
    assert notes_about([case], calm) == ()
    assert "governor is 'powersave'" in notes_about([case], calm | {"governor": "powersave"})[0]
    assert "90% of the machine's processors" in notes_about([case], calm | {"load": 0.9})[0]
    wide = dataclasses.replace(case, host=dataclasses.replace(times, high=11.0))
    assert "no better than 5%" in notes_about([wide], calm)[0]
    rising = dataclasses.replace(case, host=dataclasses.replace(times, round_medians=tuple(range(10, 20))))
    assert "steadily slower or faster" in notes_about([rising], calm)[0]


def test_shapes_of_the_command_line() -> None:
    assert parse_shapes("a:b:1x2,c:3") == {"a:b": (1, 2), "c": (3,)}
    for text in ("", "x", "x:", ":1", "x:1x", "x:-1", "x:1,", "x:1x2x"):
        with pytest.raises(SettingError, match="NAME:SIZExSIZE"):
            parse_shapes(text)


def test_shapes_are_checked_against_the_profiles(engine: trt_rt.Engine) -> None:
    (tensor,) = engine.inputs
    (inputs,) = make_inputs(engine.inputs, shapes_of_batch(engine.inputs, 3), engine.device)
    assert inputs.shape[0] == 3
    assert torch.equal(inputs, make_inputs(engine.inputs, {tensor.name: inputs.shape}, engine.device)[0])
    with pytest.raises(InputError, match="there is no input 'nobody'"):
        make_inputs(engine.inputs, {"nobody": (1,)}, engine.device)
    with pytest.raises(InputError, match="does not fit input"):
        make_inputs(engine.inputs, {tensor.name: (1, 2, 3, 4, 5, 6)}, engine.device)
    with pytest.raises(InputError, match="no profile of the engine admits"):
        make_inputs(engine.inputs, shapes_of_batch(engine.inputs, 10**6), engine.device)


def test_values_of_shape_tensors_are_given_like_sizes() -> None:
    with trt_rt.Engine.from_bytes(plans.shape_tensor()) as engine:
        target = report.EngineTarget(engine, "shapes")
        workload = target.workload({})
        module = target.new_module()
        module(*workload.arguments)  # the values that the profile was optimized for are valid


def test_the_warm_up_ends_when_times_are_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    from trt_rt.report import measuring

    made: list[int] = []

    def ever_faster(function: object, calls: int, *_: object) -> tuple[array[int], array[int]]:
        """Each call takes a fifth less than the one before, from 10 ms to 0.2 ms."""
        numbers = range(len(made), len(made) + calls)
        times = [max(int(10_000_000 * 0.8**number), 200_000) for number in numbers]
        made.extend(times)
        return array("q", times), array("q", times)

    monkeypatch.setattr(measuring, "time_calls", ever_faster)
    calls, seconds = measuring.warm_up(Call(int), None, limit=3600.0)
    assert calls == len(made)
    steady = made.index(200_000)
    assert 4 <= calls - steady <= 5 * 25, "four batches of 5 ms, and the one before"
    assert seconds == 0.0002


def test_the_warm_up_of_times_that_are_never_steady_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from trt_rt.report import measuring

    made: list[int] = []

    def ever_slower(function: object, calls: int, *_: object) -> tuple[array[int], array[int]]:
        made.append(1_000_000 * 2 ** len(made))
        times = array("q", [made[-1]] * calls)
        return times, times

    clock = itertools.count()
    monkeypatch.setattr(measuring, "time_calls", ever_slower)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    _, seconds = measuring.warm_up(Call(int), None, limit=7.0)
    assert len(made) == 8  # the clock tells a second more each time that it is asked
    assert seconds == made[-1] / 1e9


def test_json_has_nothing_that_json_lacks(result: report.Result) -> None:
    text = json.dumps(result.to_json(), allow_nan=False)
    assert len(text) < 200_000
