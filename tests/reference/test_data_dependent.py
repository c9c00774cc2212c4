"""Outputs whose shape is known only when the network has run go through output allocators."""

from __future__ import annotations

import pytest
import torch

from tests.reference import plans
from tests.reference.harness import RecordingAllocator, Session
from trt_rt import reference as trt


@pytest.fixture
def session(device: str) -> Session:
    return Session(plans.nonzero(device), device)


def test_shapes_before_the_run(session: Session) -> None:
    assert session.engine.get_tensor_shape("output0") == (-1, 2)
    session.bind_inputs(torch.eye(3, 5))
    assert session.context.infer_shapes() == []
    assert session.context.get_tensor_shape("output0") == (-1, 2)
    assert session.context.get_tensor_shape("output1") == (3, 5)
    assert session.context.get_tensor_strides("output0") == (2, 1)
    assert session.context.get_max_output_size("output0") == -1
    assert session.context.get_max_output_size("output1") == 60


@pytest.mark.parametrize("x", [torch.eye(3, 5), torch.ones(32, 5), torch.zeros(2, 5), torch.zeros(0, 5)])
def test_results_and_requests(session: Session, x: torch.Tensor) -> None:
    found, doubled = session.run(x)
    expected = torch.nonzero(x)
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(doubled.cpu(), x * 2)
    allocator = session.bound["output0"]
    alignment = 64 if session.device.type == "cpu" else 256
    stream = 0 if session.stream is None else session.stream.cuda_stream
    # TensorRT asks for at least one byte.
    assert allocator.requests == [("output0", 0, max(expected.numel() * 8, 1), alignment, stream)]
    assert allocator.shapes == [("output0", tuple(expected.shape))]
    assert isinstance(allocator.shapes[0][1], trt.Dims)


def test_every_run_asks_again(session: Session) -> None:
    session.run(torch.eye(3, 5))
    first = session.bound["output0"]
    session.bind_inputs(torch.ones(3, 5))
    assert session.enqueue()
    assert [request[2] for request in first.requests] == [3 * 16, 15 * 16]


def test_without_an_allocator_it_is_refused(session: Session) -> None:
    session.run(torch.eye(3, 5))
    assert session.context.get_output_allocator("output0") is session.bound["output0"]
    assert session.context.set_output_allocator("output0", None)
    assert session.context.get_output_allocator("output0") is None
    assert not session.enqueue()
    assert "the shape of output 'output0' depends on data" in session.logger.take_error()


def test_an_allocator_serves_an_output_of_known_shape_until_it_is_unset(device: str) -> None:
    session = Session(plans.affine(device=device), device)
    (y,) = session.run(torch.zeros(2, 7))
    allocator = RecordingAllocator(session.device)
    assert session.context.set_output_allocator("output0", allocator)
    y.fill_(-5)
    assert session.enqueue()
    assert allocator.requests[0][:3] == ("output0", y.data_ptr(), y.nbytes)
    assert allocator.tensor(y.dtype).eq(1).all()
    assert y.eq(-5).all()
    assert session.context.set_output_allocator("output0", None)
    assert session.enqueue()
    assert len(allocator.requests) == 1
    assert y.eq(1).all()


@pytest.mark.parametrize("address", [None, 0])
def test_an_allocator_without_memory_makes_the_run_fail(session: Session, address: int | None) -> None:
    session.run(torch.eye(3, 5))
    allocator = session.bound["output0"]
    allocator.reallocate_output_async = lambda *request: address
    assert not session.enqueue()
    assert "gave no memory for 48 bytes" in session.logger.take_error()
    del allocator.reallocate_output_async
    assert session.enqueue()


def test_an_allocator_with_misaligned_memory_makes_the_run_fail(session: Session) -> None:
    session.run(torch.eye(3, 5))
    session.bound["output0"].reallocate_output_async = lambda *request: 8
    assert not session.enqueue()
    assert "not aligned" in session.logger.take_error()


def test_an_allocator_that_raises_makes_the_run_fail(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises(*request: object) -> int:
        raise MemoryError("no memory left")

    session.run(torch.eye(3, 5))
    session.bound["output0"].reallocate_output_async = raises
    assert not session.enqueue()
    assert "gave no memory" in session.logger.take_error()
    assert "no memory left" in capsys.readouterr().err


def test_the_older_allocator_method(session: Session) -> None:
    class Older(trt.IOutputAllocator):
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            self.memory = torch.empty(size, dtype=torch.uint8, device=session.device)
            return self.memory.data_ptr()

        def notify_shape(self, tensor_name: str, shape: trt.Dims) -> None:
            self.shape = shape

    session.bind_inputs(torch.eye(3, 5))
    session.bind_outputs()
    allocator = Older()
    session.context.set_output_allocator("output0", allocator)
    assert session.enqueue()
    assert allocator.shape == (3, 2)
    assert torch.equal(allocator.memory.view(torch.int64).reshape(3, 2).cpu(), torch.nonzero(torch.eye(3, 5)))


def test_dimensions_that_do_not_depend_on_data_are_known() -> None:
    class Columns(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            kept = x[:, x[0] > 0]
            return kept, torch.zeros_like(x).masked_fill(x > kept.sum(), 1)

    plan = trt.build(Columns(), (torch.ones(3, 5),), dynamic_shapes={"x": {0: plans.BATCH}})
    session = Session(plan)
    session.bind_inputs(torch.ones(7, 5))
    assert session.context.get_tensor_shape("output0") == (7, -1)
    assert session.context.get_tensor_shape("output1") == (7, 5)
    session.bind_outputs()
    assert session.enqueue()
    assert session.result("output0").shape == (7, 5)
