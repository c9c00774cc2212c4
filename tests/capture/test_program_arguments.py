"""Arguments of programs that are run as one graph: kinds of tensors, static inputs, writes, and refusals."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from tests.capture.programs import Program, batch, captures
from tests.reference.plans import eager_affine
from trt_rt import ExecutionError, InputError
from trt_rt.errors import InputValueError
from trt_rt.runtime import enable_cudagraphs


def test_inputs_that_require_grad_and_inference_mode(device: str) -> None:
    with enable_cudagraphs(Program(device), whole_graph=True) as run:
        for requires_grad in (True, False, True):
            x = batch(device).requires_grad_(requires_grad)
            result = run(x)
            assert not result.requires_grad
            torch.testing.assert_close(result, eager_affine(x.detach()) * 2)
        x = batch(device)
        with torch.inference_mode():
            inside = run(x)
            assert inside.is_inference()  # as results of PyTorch's operators are
            torch.testing.assert_close(inside, eager_affine(x) * 2)
        torch.testing.assert_close(run(x) + inside, eager_affine(x) * 4)
        assert captures(run) == 1


def test_views_and_conjugates(device: str) -> None:
    def body(y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return y[:1, :1] + z

    x = batch(device)
    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(2):
            z = torch.randn(2, 3, dtype=torch.complex64, device=device)
            torch.testing.assert_close(run(x, z.conj()), eager_affine(x)[:1, :1] + z.conj())
            wide = torch.randn(1, 3, device=device).expand(4, 3)
            torch.testing.assert_close(run(x, wide), eager_affine(x)[:1, :1] + wide)


def test_empty_tensors_and_no_results(device: str) -> None:
    with enable_cudagraphs(Program(device, lambda y, z: (z * 2, y[:0])), whole_graph=True) as run:
        for _ in range(3):
            doubled, none = run(batch(device), torch.empty(0, 4, device=device))
            assert (doubled.shape, none.shape) == ((0, 4), (0, 7))
    with enable_cudagraphs(Program(device, lambda y: None), whole_graph=True) as run:
        assert [run(batch(device)) for _ in range(3)] == [None] * 3


ODD = {
    "negated": torch._neg_view,
    "transposed": lambda x: x.t().contiguous().t(),
    "a view": lambda x: torch.cat([x, x])[3:],
    "expanded": lambda x: x[:1].expand(3, 7),
    "double": lambda x: x.double(),
    "complex": lambda x: torch.complex(x, x).conj(),
    "bool": lambda x: x > 0,
    "empty": lambda x: x[:0],
    "scalar": lambda x: x[0, 0],
    "imaginary part": lambda x: torch.complex(x, -x).conj().imag,
}


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_odd_tensors_are_copied_right(device: str, odd: Any, count: int) -> None:
    """Both on the way in and on the way out."""
    program = Program(device, lambda y, *others: (y, *[other.clone() for other in others]))
    with enable_cudagraphs(program, whole_graph=True) as run:
        for _ in range(3):
            x = batch(device)
            others = [odd(batch(device)) for _ in range(count)]
            y, *results = run(x, *others)
            torch.testing.assert_close(y, eager_affine(x))
            for result, other in zip(results, others, strict=True):
                torch.testing.assert_close(result, other.clone())


def test_arguments_that_a_transform_has_wrapped_are_refused() -> None:
    x = batch("cpu")
    with enable_cudagraphs(Program("cpu"), whole_graph=True) as run:
        for _ in range(2):
            with pytest.raises(InputError, match=r"torch\.func"):
                torch.func.grad(lambda v: run(v).sum())(x)
            torch.testing.assert_close(run(x), eager_affine(x) * 2)


def test_static_inputs_are_not_copied(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with enable_cudagraphs(Program(device, lambda y, z: y + z), whole_graph=True) as run:
        assert run.graph_inputs is None
        run(batch(device), batch(device))
        static = run.graph_inputs
        for tensor in static:
            tensor.normal_()
        expected = eager_affine(static[0]) + static[1]
        written = [tensor._version for tensor in static]
        torch.testing.assert_close(run(*static), expected)
        assert [tensor._version for tensor in static] == written
        x = batch(device)
        torch.testing.assert_close(run(x, static[1]), eager_affine(x) + static[1])


def free(tensor: torch.Tensor) -> None:
    with contextlib.suppress(RuntimeError):  # PyTorch may refuse it
        tensor.untyped_storage().resize_(0)


def assign(tensor: torch.Tensor) -> None:
    tensor.data = torch.zeros(2, device=tensor.device)


def resize(tensor: torch.Tensor) -> None:
    tensor.resize_(1)


@pytest.mark.parametrize("change", [free, assign, torch.Tensor.t_], ids=["free", "assign", "t_"])
@pytest.mark.parametrize("calls", [1, 2])
def test_static_inputs_that_callers_alter(device: str, change: Any, calls: int) -> None:
    """The graph's own memory is not in the callers' hands."""
    with enable_cudagraphs(Program(device), whole_graph=True) as run:
        for _ in range(calls):
            run(batch(device))
        for _ in range(3):
            change(run.graph_inputs[0])
            # What would be written into freed memory would be found here.
            others = [torch.zeros(3, 7, device=device) for _ in range(64)]
            x = batch(device)
            torch.testing.assert_close(run(x), eager_affine(x) * 2)
            assert not any(other.any() for other in others)
        assert captures(run) == 1


@pytest.mark.parametrize("nested", [False, True])
def test_engines_that_write_into_an_argument(device: str, nested: bool) -> None:
    def body(y: torch.Tensor, out: Any) -> torch.Tensor:
        program.engine(y, out=out[0] if nested else out)
        return y + 1

    program = Program(device, body)
    with enable_cudagraphs(program, whole_graph=True) as run:
        for _ in range(3):
            x, out = batch(device), torch.zeros(3, 7, device=device)
            torch.testing.assert_close(run(x, [out] if nested else out), eager_affine(x) + 1)
            torch.testing.assert_close(out, eager_affine(eager_affine(x)))


def test_arguments_that_share_memory_which_is_only_read(device: str) -> None:
    program = Program(device, lambda y, a, b: y.sum() + a.sum() + b.sum())
    with enable_cudagraphs(program, whole_graph=True) as run:
        for _ in range(3):
            x, base = batch(device), torch.randn(8, device=device)
            torch.testing.assert_close(
                run(x, base, base[2:]), eager_affine(x).sum() + base.sum() + base[2:].sum()
            )


def test_a_write_into_memory_that_arguments_share_is_refused(device: str) -> None:
    program = Program(device, lambda y, a, b: a.add_(1.0).sum() + b.sum() + y.sum())
    x, base, other = batch(device), torch.zeros(8, device=device), torch.zeros(6, device=device)

    def refused(run: torch.nn.Module) -> None:
        before = base.clone()
        with pytest.raises(InputValueError, match=r"argument 1, which shares memory with argument 2"):
            run(x, base, base[2:])
        assert torch.equal(base, before)

    with enable_cudagraphs(program, whole_graph=True) as run:
        refused(run)  # while it would be captured
        for step in range(1, 4):
            torch.testing.assert_close(run(x, base, other), base.sum() + eager_affine(x).sum())
            assert torch.equal(base, torch.full_like(base, step))
        refused(run)  # when it would be replayed
        halves = torch.zeros(14, device=device)
        torch.testing.assert_close(run(x, halves[:8], halves[8:]), halves.sum() + eager_affine(x).sum())
        assert halves.tolist() == [1.0] * 8 + [0.0] * 6


@pytest.mark.parametrize("change", [assign, resize, torch.Tensor.t_], ids=["assign", "resize", "t_"])
def test_a_program_that_alters_the_shape_or_memory_of_an_argument_is_refused(
    device: str, change: Any
) -> None:
    def body(y: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        change(state)
        return y

    x, state = batch(device), torch.zeros(2, 3, device=device)
    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(2):
            with pytest.raises(ExecutionError, match="another shape or other memory"):
                run(x, state)
        assert state.shape == (2, 3)
        assert not state.any()


def test_a_program_that_replaces_an_item_of_a_list_is_refused(device: str) -> None:
    def body(y: torch.Tensor, state: list[torch.Tensor]) -> torch.Tensor:
        state[0] = state[0] + 1
        return y + state[0]

    with (
        enable_cudagraphs(Program(device, body), whole_graph=True) as run,
        pytest.raises(ExecutionError, match=r"replaces items of a list or dict"),
    ):
        run(batch(device), [torch.zeros(3, 7, device=device)])
