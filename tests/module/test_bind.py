"""`TRTModule.bind`: everything bound once, and right whatever happens in between."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests import isolated
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import BoundCall, InputError, TRTModule
from trt_rt.errors import InputValueError


def test_every_call_reads_the_same_inputs_and_writes_the_same_outputs(
    module: TRTModule, x: torch.Tensor
) -> None:
    bound = module.bind(x)
    first = bound()
    torch.testing.assert_close(first, eager_affine(x))
    for _ in range(3):
        x.normal_()
        assert bound() is first
        torch.testing.assert_close(first, eager_affine(x))
    assert bound.inputs[0] is x
    assert bound.outputs is first


def test_binding_runs_nothing(module: TRTModule, x: torch.Tensor) -> None:
    out = torch.full((3, 7), 123.0)
    module.bind(x, out=out)
    assert bool((out == 123).all())


def test_other_calls_in_between(module: TRTModule, x: torch.Tensor) -> None:
    bound = module.bind(x)
    for batch in (1, 3, 8, 3):
        other = torch.randn(batch, 7)
        result = module(other)
        x.normal_()
        torch.testing.assert_close(bound(), eager_affine(x))
        torch.testing.assert_close(bound(), eager_affine(x))
        torch.testing.assert_close(result, eager_affine(other))


@pytest.mark.parametrize("pre_allocated", [False, True])
def test_bound_calls_that_alternate(module: TRTModule, pre_allocated: bool) -> None:
    module.set_pre_allocated_outputs(pre_allocated)
    inputs = [torch.randn(batch, 7) for batch in (3, 3, 5, 1)]
    calls = [module.bind(x) for x in inputs]
    for _ in range(3):
        for x in inputs:
            x.normal_()
        results = [call() for call in calls]
        for x, result in zip(inputs, results, strict=True):
            torch.testing.assert_close(result, eager_affine(x))


@pytest.mark.parametrize("bind_first", [False, True])
def test_pre_allocated_results_and_bound_results_are_apart(
    module: TRTModule, x: torch.Tensor, bind_first: bool
) -> None:
    module.set_pre_allocated_outputs(True)
    if not bind_first:
        module(x)
    bound = module.bind(x)
    result = bound()
    other = torch.randn(3, 7)
    reused = module(other)
    torch.testing.assert_close(result, eager_affine(x))
    x.normal_()
    bound()
    torch.testing.assert_close(reused, eager_affine(other))


def test_failing_calls_in_between(module: TRTModule, x: torch.Tensor) -> None:
    bound = module.bind(x)
    for bad in (torch.randn(33, 7), torch.randn(3, 6), x.double(), None):
        with pytest.raises(InputError):
            module(bad)
        x.normal_()
        torch.testing.assert_close(bound(), eager_affine(x))
    with pytest.raises(InputError):
        module.bind(x[:0])
    torch.testing.assert_close(bound(), eager_affine(x))


def test_modes_switched_in_between(module: TRTModule, x: torch.Tensor) -> None:
    bound = module.bind(x)
    for enable in (True, False, True):
        module.set_pre_allocated_outputs(enable, buffers=2)
        module(torch.randn(3, 7))
        x.normal_()
        torch.testing.assert_close(bound(), eager_affine(x))


def test_more_shapes_in_between_than_are_remembered() -> None:
    module = TRTModule(plans.shape_tensor())
    x = torch.arange(4.0)
    calls = [(length, module.bind(x, torch.tensor([length]))) for length in range(1, 21)]
    for _ in range(2):
        for length, call in calls:
            torch.testing.assert_close(call(), x[torch.arange(length) % 4])


def test_a_shape_tensor_keeps_the_values_that_it_had() -> None:
    module = TRTModule(plans.shape_tensor())
    x, length = torch.randn(4), torch.tensor([6])
    bound = module.bind(x, length)
    length.fill_(3)
    for _ in range(2):
        torch.testing.assert_close(bound(), x[torch.arange(6) % 4])
        torch.testing.assert_close(module(x, length), x[torch.arange(3) % 4])
        torch.testing.assert_close(module(x, torch.tensor([15])), x[torch.arange(15) % 4])  # another profile


def test_out(module: TRTModule, x: torch.Tensor) -> None:
    out = torch.empty(3, 7)
    bound = module.bind(x, out=out)
    assert bound() is out
    torch.testing.assert_close(out, eager_affine(x))
    module(torch.randn(5, 7))
    x.normal_()
    bound()
    torch.testing.assert_close(out, eager_affine(x))


@pytest.mark.parametrize(
    "make_out",
    [
        lambda x: torch.empty(4, 7),
        lambda x: torch.empty(3, 7, dtype=torch.float16),
        lambda x: x,
        lambda x: torch.empty(7, 3).t(),
        lambda x: [],
        lambda x: 3,
    ],
    ids=["shape", "dtype", "overlap", "strides", "count", "int"],
)
def test_an_out_that_does_not_fit(module: TRTModule, x: torch.Tensor, make_out: Any) -> None:
    module(x)
    with pytest.raises(InputError):
        module.bind(x, out=make_out(x))
    torch.testing.assert_close(module(x), eager_affine(x))


@pytest.mark.parametrize("kind", ["list", "generator"])
def test_out_is_kept_alive_whatever_happens_to_its_container(
    module: TRTModule, x: torch.Tensor, kind: str
) -> None:
    tensors = [torch.empty(3, 7)]
    alive = weakref.ref(tensors[0])
    if kind == "list":
        bound = module.bind(x, out=tensors)
        tensors.clear()
    else:
        bound = module.bind(x, out=(tensors.pop() for _ in range(1)))
    gc.collect()
    assert alive() is not None  # else the engine writes into memory that is free
    bound()
    torch.testing.assert_close(alive(), eager_affine(x))


def test_inputs_are_kept_alive(module: TRTModule) -> None:
    x = torch.randn(3, 7)
    expected, alive = eager_affine(x), weakref.ref(x)
    bound = module.bind(x)
    del x
    gc.collect()
    assert alive() is not None
    torch.testing.assert_close(bound(), expected)
    del bound
    gc.collect()
    module(torch.randn(3, 7))
    assert alive() is None


def test_the_module_is_not_needed(x: torch.Tensor) -> None:
    bound = TRTModule(plans.affine()).bind(x)
    gc.collect()
    torch.testing.assert_close(bound(), eager_affine(x))


NOT_BINDABLE = {
    "transposed": lambda x: x.t().contiguous().t(),
    "expanded": lambda x: x[:1].expand(3, 7),
    "misaligned": lambda x: torch.empty(22)[1:].view(3, 7),
    "negative": lambda x: torch._neg_view(x),
    "NumPy": lambda x: frozen(x.numpy().copy()),
}


def frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("make", NOT_BINDABLE.values(), ids=NOT_BINDABLE.keys())
def test_what_would_have_to_be_copied_is_refused(module: TRTModule, x: torch.Tensor, make: Any) -> None:
    bound = module.bind(x)
    with pytest.raises(InputValueError, match="cannot be bound"):
        module.bind(make(x))
    torch.testing.assert_close(bound(), eager_affine(x))


@pytest.mark.parametrize("kind", [nn.Parameter, nn.Buffer, lambda x: x.requires_grad_()])
def test_tensors_with_memory_of_their_own_can_be_bound(module: TRTModule, x: torch.Tensor, kind: Any) -> None:
    argument = kind(x)
    bound = module.bind(argument)
    torch.testing.assert_close(bound(), eager_affine(argument.detach()))
    with torch.no_grad():
        argument.normal_()
    torch.testing.assert_close(bound(), eager_affine(argument.detach()))


def test_several_outputs() -> None:
    module = TRTModule(plans.two())
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    bound = module.bind(a, b)
    for _ in range(2):
        torch.testing.assert_close(bound(), (a + b, b + 1))
        module(torch.randn(4, 3), torch.randn(4, 3))
        a.normal_()
    outs = [torch.empty(2, 3), torch.empty(2, 3)]
    module.bind(b=b, a=a, out=outs)()
    torch.testing.assert_close(outs, [a + b, b + 1])


def test_no_inputs() -> None:
    module = TRTModule(plans.constants())
    bound = module.bind()
    torch.testing.assert_close(bound(), (torch.arange(4), torch.full((), 2.5)))
    torch.testing.assert_close(module(), bound())


def test_an_aliased_input() -> None:
    module = TRTModule(plans.accumulate())
    cache, x = torch.zeros(8, 4), torch.randn(8, 4)
    bound = module.bind(cache, x)
    for count in range(1, 4):
        bound()
        torch.testing.assert_close(cache, x * count)
        module(torch.zeros(8, 4), torch.randn(8, 4))


def test_data_dependent_and_ordinary_outputs_together(tmp_path: Path) -> None:
    # In a process of its own: wrong, it writes into memory that is free.
    code = """
    module = TRTModule(plan)
    x = torch.eye(5)
    bound = module.bind(x)
    assert bound.outputs is None
    held = []
    for step in range(50):
        x.copy_(torch.eye(5) * (step + 1))
        x[step % 5] = 0
        indices, twice = bound()
        assert torch.equal(indices, torch.nonzero(x)), step
        assert torch.equal(twice, x * 2), step
        module(torch.ones(7, 5))
        held.append(torch.empty(5, 5).fill_(step))
    assert all(bool((tensor == step).all()) for step, tensor in enumerate(held))
    """
    done = isolated.run(code, plans.nonzero(), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_memory_of_a_bound_result_stays_whatever_is_done_to_it(tmp_path: Path) -> None:
    # In a process of its own: wrong, the engine writes into memory that is free.
    code = """
    import contextlib
    x = torch.ones(3, 7)
    for change in (
        lambda result: result.set_(torch.zeros(64, 64)),
        lambda result: result.resize_(100, 100),
        lambda result: result.resize_(0),
        lambda result: result.untyped_storage().resize_(0),
        lambda result: setattr(result, "data", torch.zeros(3, 7)),
        lambda result: result.t_(),
    ):
        module = TRTModule(plan)
        bound = module.bind(x)
        with contextlib.suppress(RuntimeError):
            change(bound())
        others = [torch.full((3, 7), -1.0) for _ in range(64)]  # one would get the memory if it was free
        with contextlib.suppress(TRTError):
            bound()
        assert all(bool((other == -1).all()) for other in others)
        assert torch.equal(module(x), torch.full((3, 7), 3.0))
    """
    done = isolated.run(code, plans.affine(), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_bind_makes_bound_calls(module: TRTModule, x: torch.Tensor) -> None:
    with pytest.raises(TypeError):
        BoundCall(module.executor, (x,))


def test_a_bound_call_that_python_made_is_refused(tmp_path: Path) -> None:
    code = """
    module = TRTModule(plan)
    bound_type = type(module.bind(torch.randn(3, 7)))
    for arguments in ((), (module.executor, ())):
        for call in (lambda made: made(), lambda made: made.__call__()):
            try:
                call(bound_type.__new__(bound_type, *arguments))
            except TypeError:
                pass
            else:
                raise AssertionError("a call that nothing is bound to was made")
    """
    done = isolated.run(code, plans.affine(), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bound_call_takes_no_arguments(module: TRTModule, x: torch.Tensor) -> None:
    bound = module.bind(x)
    with pytest.raises(TypeError):
        bound(x)
    torch.testing.assert_close(bound(), eager_affine(x))
