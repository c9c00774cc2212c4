"""Refitter: the weights of an engine that was built for it change, by name, where they lie."""

from __future__ import annotations

import pytest
import torch

from tests.reference.harness import Session
from trt_rt import reference as trt


class Weighted(torch.nn.Module):
    """Weights of several kinds: a parameter, a number of rows, and one whose type TensorRT has not."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((4,), 2.0))
        self.register_buffer("rows", torch.tensor([1, 0]))
        self.register_buffer("exact", torch.full((4,), 0.5, dtype=torch.float64))
        self.register_buffer("constant", torch.ones(4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[self.rows] * self.scale + self.constant + self.exact).float()


@pytest.fixture
def session(device: str) -> Session:
    plan = trt.build(Weighted(), (torch.zeros(2, 4),), refittable=True, device=device)
    return Session(plan, device)


def weights_of(tensor: torch.Tensor, dtype: trt.DataType = trt.DataType.FLOAT) -> trt.Weights:
    return trt.Weights(dtype, tensor.data_ptr(), tensor.numel())


X = torch.arange(8.0).reshape(2, 4)


def test_names_are_those_of_the_state_dict(session: Session) -> None:
    assert session.engine.refittable
    refitter = trt.Refitter(session.engine, session.logger)
    assert refitter.logger is session.logger
    assert sorted(refitter.get_all_weights()) == ["rows", "scale"]
    assert refitter.get_missing_weights() == []


def test_prototypes(session: Session) -> None:
    refitter = trt.Refitter(session.engine, session.logger)
    scale = refitter.get_weights_prototype("scale")
    assert (scale.dtype, scale.size, scale.nbytes, len(scale)) == (trt.DataType.FLOAT, 4, 16, 4)
    assert refitter.get_weights_prototype("rows").dtype == trt.DataType.INT64
    unknown = refitter.get_weights_prototype("nothing")
    assert (unknown.size, len(unknown)) == (-1, 0)
    assert session.logger.errors == []


def test_refitted_weights_are_used_and_serialized(session: Session) -> None:
    engine = session.engine
    torch.testing.assert_close(session.run(X)[0].cpu(), X[[1, 0]] * 2 + 1.5)
    refitter = trt.Refitter(engine, session.logger)
    scale, rows = torch.full((4,), 3.0), torch.tensor([0, 0])
    assert refitter.set_named_weights("scale", weights_of(scale))
    assert refitter.set_named_weights("rows", weights_of(rows, trt.DataType.INT64), trt.TensorLocation.HOST)
    assert refitter.get_named_weights("scale").size == 4
    torch.testing.assert_close(session.run(X)[0].cpu(), X[[1, 0]] * 2 + 1.5)
    assert refitter.refit_cuda_engine()
    torch.testing.assert_close(session.run(X)[0].cpu(), X[[0, 0]] * 3 + 1.5)
    again = Session(engine.serialize(), session.device.type)
    torch.testing.assert_close(again.run(X)[0].cpu(), X[[0, 0]] * 3 + 1.5)
    assert again.engine.refittable
    scale.fill_(4)  # what was set stays set, and is read again
    assert refitter.refit_cuda_engine()
    torch.testing.assert_close(session.run(X)[0].cpu(), X[[0, 0]] * 4 + 1.5)


def test_weights_on_the_engines_device(session: Session) -> None:
    refitter = trt.Refitter(session.engine, session.logger)
    scale = torch.full((4,), 5.0, device=session.device)
    assert refitter.set_named_weights("scale", weights_of(scale), trt.TensorLocation.DEVICE)
    assert refitter.refit_cuda_engine()
    torch.testing.assert_close(session.run(X)[0].cpu(), X[[1, 0]] * 5 + 1.5)


@pytest.mark.parametrize(
    ("name", "weights", "reason"),
    [
        ("nothing", weights_of(torch.ones(4)), "no weight 'nothing'"),
        ("constant", weights_of(torch.ones(4)), "no weight 'constant'"),
        ("exact", weights_of(torch.ones(4)), "no weight 'exact'"),
        ("scale", weights_of(torch.ones(3)), "4 elements of FLOAT, not 3 of FLOAT"),
        ("scale", weights_of(torch.ones(4), trt.DataType.INT32), "4 elements of FLOAT, not 4 of INT32"),
    ],
)
def test_what_does_not_fit_is_refused(session: Session, name: str, weights: trt.Weights, reason: str) -> None:
    refitter = trt.Refitter(session.engine, session.logger)
    assert refitter.set_named_weights(name, weights) is False
    assert reason in session.logger.take_error()
    assert refitter.refit_cuda_engine()
    torch.testing.assert_close(session.run(X)[0].cpu(), X[[1, 0]] * 2 + 1.5)


def test_weights_that_were_unset_are_not_changed(session: Session) -> None:
    refitter = trt.Refitter(session.engine, session.logger)
    scale = torch.zeros(4)
    assert refitter.set_named_weights("scale", weights_of(scale))
    assert refitter.unset_named_weights("scale")
    assert not refitter.unset_named_weights("scale")
    assert refitter.get_named_weights("scale").size == 0
    assert "was not set" in session.logger.take_error()
    assert refitter.refit_cuda_engine()
    torch.testing.assert_close(session.run(X)[0].cpu(), X[[1, 0]] * 2 + 1.5)


def test_an_engine_that_was_not_built_for_it(device: str) -> None:
    session = Session(trt.build(Weighted(), (torch.zeros(2, 4),), device=device), device)
    assert not session.engine.refittable
    with pytest.raises(TypeError, match="returned nullptr"):
        trt.Refitter(session.engine, session.logger)
    assert "without refittable=True" in session.logger.take_error()


def test_weights_on_which_shapes_depend_are_fixed(device: str) -> None:
    class Sized(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.tensor([3]))
            self.bias = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
            count = (length + self.count)[0].item()
            torch._check(count >= 4)
            torch._check(count <= 8)
            return x[torch.arange(count, device=x.device) % 4] + self.bias

    plan = trt.build(
        Sized(),
        (torch.zeros(4), torch.tensor([2])),
        shape_inputs=["length"],
        profiles=[{"length": ([1], [2], [5])}],
        refittable=True,
        device=device,
    )
    session = Session(plan, device)
    assert trt.Refitter(session.engine, session.logger).get_all_weights() == ["bias"]
