"""What does not fit is refused and logged, as TensorRT does, and leaves the context as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.reference import plans
from tests.reference.harness import RecordingAllocator, RecordingLogger, Session
from trt_rt import reference as trt


@pytest.fixture
def session(device: str) -> Session:
    session = Session(plans.affine(device=device), device)
    session.run(torch.zeros(2, 7))
    session.logger.messages.clear()
    return session


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((33, 7), "outside profile 0: min [1, 7], max [32, 7]"),
        ((0, 7), "outside profile 0"),
        ((2, 6), "outside profile 0"),
        ((2, 7, 1), "outside profile 0"),
        ((), "outside profile 0"),
        ((-1, 7), "outside profile 0"),
        ((2**70, 7), "outside profile 0"),
    ],
)
def test_shapes_outside_the_profile(session: Session, shape: tuple[int, ...], reason: str) -> None:
    assert not session.context.set_input_shape("x", shape)
    error = session.logger.take_error()
    assert error.startswith("IExecutionContext::setInputShape: Error Code 3: API Usage Error (")
    assert reason in error
    assert session.context.get_tensor_shape("x") == (2, 7)
    assert session.enqueue()


@pytest.mark.parametrize("name", ["y", "output0", ""])
def test_shapes_of_what_is_no_input(session: Session, name: str) -> None:
    assert not session.context.set_input_shape(name, (2, 7))
    assert repr(name) in session.logger.take_error()


@pytest.mark.parametrize("shape", ["ab", 7, None, {2, 7}])
def test_shapes_that_are_none(session: Session, shape: object) -> None:
    with pytest.raises(TypeError):
        session.context.set_input_shape("x", shape)


def test_shapes_may_be_tuples_lists_and_dims(session: Session) -> None:
    for shape in ((3, 7), [4, 7], trt.Dims((5, 7))):
        assert session.context.set_input_shape("x", shape)
        assert session.context.get_tensor_shape("output0") == shape


@pytest.mark.parametrize("name", ["x", "output0"])
def test_addresses_must_be_aligned(session: Session, name: str) -> None:
    alignment = 64 if session.device.type == "cpu" else 256
    address = session.bound[name].data_ptr()
    assert not session.context.set_tensor_address(name, address + alignment // 2)
    assert f"not aligned to {alignment} bytes" in session.logger.take_error()
    assert not session.context.set_tensor_address(name, -alignment)
    assert "not aligned" in session.logger.take_error()
    assert session.context.get_tensor_address(name) == address
    assert session.enqueue()


def test_addresses_of_what_is_no_tensor(session: Session) -> None:
    assert not session.context.set_tensor_address("nothing", 0)
    assert "'nothing'" in session.logger.take_error()
    assert session.context.get_tensor_address("nothing") == 0


def test_addresses_are_integers(session: Session) -> None:
    with pytest.raises(TypeError):
        session.context.set_tensor_address("x", "memory")


def unset_shape(context: trt.IExecutionContext) -> None:
    assert context.set_optimization_profile_async(0, 0)


def unset_input(context: trt.IExecutionContext) -> None:
    assert context.set_tensor_address("x", 0)


def unset_output(context: trt.IExecutionContext) -> None:
    assert context.set_tensor_address("output0", 0)


@pytest.mark.parametrize(
    ("unset", "reason"),
    [
        (unset_shape, "not all shapes are specified: ['x'] are missing"),
        (unset_input, "the address of input 'x' is not set"),
        (unset_output, "output 'output0' has neither an address nor an output allocator"),
    ],
)
def test_what_is_not_set(
    session: Session, unset: Callable[[trt.IExecutionContext], None], reason: str
) -> None:
    session.bound["output0"].fill_(-5)
    unset(session.context)
    assert not session.enqueue()
    error = session.logger.take_error()
    assert error.startswith("IExecutionContext::enqueueV3: Error Code 2: Internal Error (")
    assert reason in error
    assert session.bound["output0"].eq(-5).all()


def test_a_stream_on_the_cpu() -> None:
    session = Session(plans.affine())
    session.run(torch.zeros(2, 7))
    assert not session.context.execute_async_v3(4096)
    assert "the handle must be 0" in session.logger.take_error()


def test_dimensions_that_must_be_equal_and_are_not(device: str) -> None:
    session = Session(plans.two(device), device)
    session.bind_inputs(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(RuntimeError, match="dimension 0 of 'b' is 3 and must be 2"):
        session.context.infer_shapes()
    session.logger.messages.clear()
    assert session.context.get_tensor_shape("sum") == (-1, 3)
    session.logger.messages.clear()
    assert not session.enqueue()
    assert "must be 2" in session.logger.take_error()
    session.logger.messages.clear()
    session.run(torch.zeros(3, 3), torch.zeros(3, 3))


def test_dimensions_that_are_derived_from_others() -> None:
    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, -1) + y

    half = torch.export.Dim("half", min=1, max=16)
    plan = trt.build(
        Halves(), (torch.zeros(6), torch.zeros(3)), dynamic_shapes={"x": {0: 2 * half}, "y": {0: half}}
    )
    session = Session(plan)
    assert session.engine.get_tensor_profile_shape("x", 0) == [(2,), (6,), (32,)]
    x, y = torch.randn(10), torch.randn(5)
    torch.testing.assert_close(session.run(x, y)[0], x.reshape(2, -1) + y)
    assert session.context.set_input_shape("x", (8,))
    with pytest.raises(RuntimeError, match="must be 10"):
        session.context.infer_shapes()


def test_indexes_and_names_that_do_not_exist(session: Session) -> None:
    engine = session.engine
    for index in (2, -1, 100):
        assert engine.get_tensor_name(index) is None
    with pytest.raises(IndexError):
        engine[2]
    assert engine[0] == "x"
    assert engine.get_tensor_mode("nothing") == trt.TensorIOMode.NONE
    assert engine.get_tensor_location("nothing") == trt.TensorLocation.DEVICE
    assert engine.get_tensor_dtype("nothing") == trt.DataType.FLOAT
    assert engine.get_aliased_input_tensor("nothing") is None
    assert engine.get_tensor_bytes_per_component("nothing") == -1
    for shape in (engine.get_tensor_shape("nothing"), session.context.get_tensor_shape("nothing")):
        with pytest.raises(ValueError, match="__len__"):
            len(shape)
    assert len(session.logger.errors) == 9


def test_output_allocators_of_what_is_no_output(session: Session) -> None:
    allocator = RecordingAllocator(session.device)
    assert not session.context.set_output_allocator("x", allocator)
    assert "'x' is not an output" in session.logger.take_error()
    assert session.context.get_output_allocator("x") is None


def test_a_second_thread_in_one_context_is_refused() -> None:
    session = Session(plans.affine())
    refused: list[bool] = []

    class Reentrant(RecordingAllocator):
        def notify_shape(self, tensor_name: str, shape: object) -> None:
            # The same as a second thread, without depending on when it runs.
            refused.append(session.enqueue())

    session.bind_inputs(torch.zeros(2, 7))
    session.context.set_output_allocator("output0", Reentrant(session.device))
    assert session.enqueue()
    assert refused == [False]
    assert "in use by another thread" in session.logger.take_error()


def test_a_logger_that_raises_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(trt.ILogger):
        def log(self, severity: object, msg: str) -> None:
            raise ValueError("broken logger")

    assert trt.Runtime(Broken()).deserialize_cuda_engine(b"") is None
    assert "Exception caught in log(): broken logger" in capsys.readouterr().err


def test_a_logger_is_needed() -> None:
    with pytest.raises(TypeError, match="logger must be an ILogger, not str"):
        trt.Runtime("log")


def test_the_logger_that_prints(capsys: pytest.CaptureFixture[str]) -> None:
    logger = trt.Logger()
    assert logger.min_severity == trt.Logger.WARNING
    logger.log(trt.Logger.Severity.ERROR, "one")
    logger.log(trt.Logger.INFO, "two")
    logger.min_severity = trt.Logger.VERBOSE
    logger.log(trt.Logger.INFO, "three")
    out = capsys.readouterr().out
    assert "[TRT] [E] one" in out
    assert "two" not in out
    assert "[TRT] [I] three" in out


def test_messages_tell_what_was_loaded() -> None:
    logger = RecordingLogger()
    trt.Runtime(logger).deserialize_cuda_engine(plans.affine())
    assert logger.messages == [(trt.ILogger.INFO, "Loaded engine size: 0 MiB")]
