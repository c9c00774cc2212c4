"""The demonstration: its network, its data, and what ``trt-rt demo`` finds with them."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="scikit-learn, which has the digits, is not installed")
pytest.importorskip("rich", reason="the package rich is not installed")

from rich.console import Console

import trt_rt
from trt_rt.backend import BackendStatus
from trt_rt.compiler import BuiltPlan
from trt_rt.demo.data import load_held_out_digits, load_training_digits
from trt_rt.demo.engine import LARGEST_BATCH, build_plan, choose_backend, export_program
from trt_rt.demo.measure import compare_with_first
from trt_rt.demo.modes import EAGER, Mode
from trt_rt.demo.network import WEIGHTS_PATH, DigitsNet, load_trained_network, save_weights
from trt_rt.demo.report import DemoReport, print_report
from trt_rt.demo.run import report_rtx_plan, run_demo
from trt_rt.demo.train import measure_accuracy, train
from trt_rt.errors import BackendError

MODES = [
    EAGER,
    "fresh outputs",
    "pre-allocated outputs",
    "caller's out=",
    "bind",
    "CUDA graphs",
    "CUDA graphs, pre-allocated",
]


def status(name: str, *, works: bool, reason: str = "") -> BackendStatus:
    return BackendStatus(
        name=name,
        installed=works,
        version="1.0" if works else None,
        can_build=works,
        can_run=works,
        reason=reason,
    )


@pytest.fixture(scope="module")
def report() -> DemoReport:
    return run_demo(calls=20)


@pytest.fixture(scope="module")
def printed(report: DemoReport) -> str:
    return print_to_text(report)


def print_to_text(report: DemoReport) -> str:
    text = io.StringIO()
    print_report(report, Console(file=text, width=140))
    return text.getvalue()


class TestData:
    def test_a_fifth_is_held_out_in_equal_proportions(self) -> None:
        training, held_out = load_training_digits(), load_held_out_digits()
        assert (len(training.labels), len(held_out.labels)) == (1437, 360)
        assert held_out.labels.bincount().min() >= 34
        assert held_out.labels.bincount().max() <= 38

    def test_images_are_grey_values_from_zero_to_one(self) -> None:
        images = load_held_out_digits().images
        assert images.shape == (360, 1, 8, 8)
        assert images.dtype == torch.float32
        assert (images.min(), images.max()) == (0, 1)

    def test_the_split_is_the_same_every_time(self) -> None:
        assert torch.equal(load_held_out_digits().images, load_held_out_digits().images)


class TestNetwork:
    def test_stored_weights_read_held_out_digits(self) -> None:
        assert measure_accuracy(load_trained_network(), load_held_out_digits()) >= 0.97

    def test_weights_file_is_small(self) -> None:
        assert WEIGHTS_PATH.stat().st_size < 200_000

    def test_saved_weights_load_as_they_were(self, tmp_path: Path) -> None:
        network = DigitsNet()
        save_weights(network, tmp_path / "weights.npz")
        loaded = load_trained_network(tmp_path / "weights.npz")
        torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)

    def test_a_pickle_is_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "weights.npz", weight=np.array([{"a": "pickled object"}], dtype=object))
        with pytest.raises(ValueError, match="allow_pickle=False"):
            load_trained_network(tmp_path / "weights.npz")


class TestTraining:
    def test_one_epoch_learns_and_is_reproducible(self) -> None:
        digits = load_training_digits()
        caller_state = torch.get_rng_state()
        first, second = train(digits, epochs=1), train(digits, epochs=1)
        assert torch.equal(torch.get_rng_state(), caller_state)
        torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
        assert measure_accuracy(first, digits) > 0.3  # chance is 0.1


class TestChoiceOfBackend:
    def test_the_first_that_builds_and_runs_is_chosen(self) -> None:
        statuses = {
            "tensorrt": status("tensorrt", works=True),
            "tensorrt_rtx": status("tensorrt_rtx", works=True),
            "reference": status("reference", works=True),
        }
        assert choose_backend(statuses).backend == "tensorrt"

    def test_the_reason_says_why_not_a_better_one(self) -> None:
        statuses = {
            "tensorrt": status("tensorrt", works=False, reason="no wheel."),
            "tensorrt_rtx": status("tensorrt_rtx", works=False, reason="no GPU."),
            "reference": status("reference", works=True),
        }
        choice = choose_backend(statuses)
        assert choice.backend == "reference"
        assert "no wheel" in choice.reason
        assert "no GPU" in choice.reason

    def test_with_none_every_reason_is_given(self) -> None:
        names = ("tensorrt", "tensorrt_rtx", "reference")
        statuses = {name: status(name, works=False, reason=f"{name} is broken") for name in names}
        with pytest.raises(
            BackendError, match=r"tensorrt is broken.*tensorrt_rtx is broken.*reference is broken"
        ):
            choose_backend(statuses)


def test_a_mode_that_is_wrong_is_found_out() -> None:
    network, digits = load_trained_network(), load_held_out_digits()
    modes = [
        Mode("right", lambda images: lambda: network(images)),
        Mode("wrong", lambda images: lambda: network(images).roll(1, dims=1)),
    ]
    right, wrong = compare_with_first(modes, digits, batch_sizes=(LARGEST_BATCH,))
    assert (right.differing_predictions, right.largest_difference) == (0, 0)
    assert wrong.differing_predictions == len(digits.labels)
    assert wrong.accuracy < 0.1
    assert wrong.largest_difference > 1


class TestDemo:
    def test_every_mode_agrees_with_pytorch(self, report: DemoReport) -> None:
        assert [found.mode for found in report.agreement] == MODES
        assert report.disagreeing_modes == []
        assert {found.accuracy for found in report.agreement} == {report.agreement[0].accuracy}
        assert report.agreement[0].accuracy >= 0.97
        # TensorFloat-32 convolutions on a GPU keep 10 bits of mantissa; scores are of the order of 10.
        assert max(found.largest_difference for found in report.agreement) < 0.1

    def test_every_mode_and_batch_size_is_timed(self, report: DemoReport) -> None:
        timed = [(latency.batch_size, latency.mode) for latency in report.latency]
        assert timed == [(size, mode) for size in (1, LARGEST_BATCH) for mode in MODES]
        assert all(0 < latency.median_us <= latency.p99_us for latency in report.latency)

    def test_the_last_batch_is_ragged(self, report: DemoReport) -> None:
        assert report.images % max(report.batch_sizes) != 0

    def test_the_report_names_what_executed_the_engine(self, report: DemoReport, printed: str) -> None:
        expected = "PyTorch, not TensorRT" if report.engine.backend == "reference" else "TensorRT, on"
        assert f"executed by {expected}" in printed

    def test_brackets_in_a_reason_are_printed(self, report: DemoReport) -> None:
        reason = "pip install 'trt_rt[lean]'"
        lean = status("tensorrt_lean", works=False, reason=reason)
        engine = dataclasses.replace(report.engine, reason=reason)
        text = print_to_text(dataclasses.replace(report, backends={"tensorrt_lean": lean}, engine=engine))
        assert text.count(reason) == 2

    def test_the_report_lists_backends_modes_and_sizes(self, report: DemoReport, printed: str) -> None:
        for name in [*report.backends, *MODES, f"{report.engine.plan_bytes:,} bytes", "98."]:
            assert name in printed


@pytest.fixture
def rtx_status() -> BackendStatus:
    rtx = trt_rt.backends()["tensorrt_rtx"]
    if not rtx.installed:
        pytest.skip(f"the TensorRT-RTX wheels are not installed: {rtx.reason}")
    return rtx


class TestRtxPlan:
    def test_the_real_builder_makes_a_real_plan(self, rtx_status: BackendStatus) -> None:
        assert rtx_status.can_build, rtx_status.reason
        built = build_plan("tensorrt_rtx", export_program(load_trained_network()))
        assert built.plan.startswith(b"vtrt")

    def test_its_size_is_printed(self, rtx_status: BackendStatus, report: DemoReport, printed: str) -> None:
        assert report.tensorrt_rtx_plan.plan_bytes is not None
        assert f"{report.tensorrt_rtx_plan.plan_bytes:,} bytes" in printed

    def test_without_the_wheels_the_report_says_what_to_install(self) -> None:
        missing = status("tensorrt_rtx", works=False, reason="Not installed. pip install 'trt_rt[rtx]'.")
        program = torch.export.export(torch.nn.ReLU(), (torch.ones(1),))
        found = report_rtx_plan(missing, BuiltPlan(b"", "reference", (), 0.0, 0.0), program)
        assert found.plan_bytes is None
        assert "pip install 'trt_rt[rtx]'" in found.remark
