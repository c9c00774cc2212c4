"""TensorRT's log goes to Python's logging, with its severity, and nowhere else."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from tests import isolated
from tests.reference import plans
from trt_rt import Engine, PlanError, TRTModule, backend, reference

LEVELS = {
    "INTERNAL_ERROR": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}


@pytest.fixture
def ilogger():
    return backend.Backend("reference", reference, runs_on_cpu=True).logger


@pytest.mark.parametrize(("severity", "level"), LEVELS.items())
def test_severities(caplog: pytest.LogCaptureFixture, ilogger, severity: str, level: int) -> None:
    caplog.set_level(logging.DEBUG, logger="trt_rt.tensorrt")
    ilogger.log(getattr(reference.ILogger.Severity, severity), "100 % of a message")
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (
        "trt_rt.tensorrt",
        level,
        "100 % of a message",
    )


def test_an_unknown_severity_is_an_error(caplog: pytest.LogCaptureFixture, ilogger) -> None:
    ilogger.log(None, "what is this")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_messages_arrive_without_a_print(caplog, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG, logger="trt_rt.tensorrt")
    with pytest.raises(PlanError):
        Engine.from_bytes(plans.affine()[:-1])
    engine = Engine.from_bytes(plans.affine())
    TRTModule(engine)(torch.randn(3, 7))
    levels = {record.levelno for record in caplog.records if record.name == "trt_rt.tensorrt"}
    assert {logging.ERROR, logging.INFO} <= levels
    assert capfd.readouterr() == ("", "")


def test_a_switched_off_log_stays_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="trt_rt.tensorrt")
    with pytest.raises(PlanError, match="truncated"):  # the message of the exception does not depend on it
        Engine.from_bytes(plans.affine()[:-1])
    assert not caplog.records


def test_a_program_without_logging_sees_nothing(tmp_path: Path) -> None:
    code = """
    try:
        Engine.from_bytes(plan[:-1])
    except TRTError:
        pass
    module = TRTModule(plan)
    x = torch.ones(3, 7)
    module(x)
    try:
        module(x[:, :2])
    except TRTError:
        pass
    """
    done = isolated.run(code, plans.affine(), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class Raising(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("this handler is broken")


def test_a_broken_handler_does_not_reach_tensorrt(capfd: pytest.CaptureFixture[str], ilogger) -> None:
    logger = logging.getLogger("trt_rt.tensorrt")
    handler = Raising()
    logger.addHandler(handler)
    try:
        ilogger.log(reference.ILogger.Severity.ERROR, "a message")  # an exception would cross TensorRT's C++
        with pytest.raises(PlanError, match="truncated"):
            Engine.from_bytes(plans.affine()[:-1])
    finally:
        logger.removeHandler(handler)


def test_an_error_is_reported_once(ilogger) -> None:
    owner = backend.Backend("reference", reference, runs_on_cpu=True)
    owner.logger.log(reference.ILogger.Severity.ERROR, "first")
    owner.logger.log(reference.ILogger.Severity.ERROR, "second")
    owner.logger.log(reference.ILogger.Severity.WARNING, "not an error")
    assert owner.log.take_error() == "second"
    assert owner.log.take_error() == ""
