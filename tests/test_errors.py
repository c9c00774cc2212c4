"""Exceptions: what they derive from, what they say, and that the call after one is right."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

import trt_rt
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import BackendError, Engine, ExecutionError, PlanError, TRTModule, errors, reference
from trt_rt.backend import Backend


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (errors.ArchiveError, [ValueError]),
        (errors.BackendError, [RuntimeError]),
        (errors.PlanError, [ValueError]),
        (errors.InputError, []),
        (errors.InputValueError, [errors.InputError, ValueError]),
        (errors.InputTypeError, [errors.InputError, TypeError]),
        (errors.SettingError, [ValueError, RuntimeError]),
        (errors.ExecutionError, [RuntimeError]),
        (errors.ClosedError, [RuntimeError]),
        (errors.CompileError, [RuntimeError]),
    ],
)
def test_hierarchy(kind: type[Exception], bases: list[type[Exception]]) -> None:
    assert issubclass(kind, errors.TRTError)
    for base in bases:
        assert issubclass(kind, base)


def test_exceptions_are_at_the_top_too() -> None:
    for name in ("TRTError", "BackendError", "PlanError", "InputError", "ExecutionError", "ClosedError"):
        assert getattr(trt_rt, name) is getattr(errors, name)


def test_execution_error_ends_with_tensorrts_last_message() -> None:
    module = TRTModule(plans.checked())
    with pytest.raises(ExecutionError) as error:
        module(-torch.ones(4))
    assert "execute_async_v3 failed. TensorRT says: IExecutionContext::enqueueV3" in str(error.value)
    torch.testing.assert_close(module(torch.ones(4)), torch.full((4,), 2.0))


def test_inputs_that_fit_their_profiles_but_not_each_other() -> None:
    module = TRTModule(plans.two())
    a, b = torch.randn(3, 3), torch.randn(5, 3)
    for call in (module, module.bind):
        with pytest.raises(errors.TRTError, match="'a'"):
            call(a, b)
        torch.testing.assert_close(module(a, a), (a + a, a + 1))


@pytest.mark.parametrize("pre_allocated", [False, True])
def test_a_bound_call_that_fails_can_be_called_again(pre_allocated: bool) -> None:
    module = TRTModule(plans.checked())
    module.set_pre_allocated_outputs(pre_allocated)
    x = torch.ones(4)
    bound = module.bind(x)
    torch.testing.assert_close(bound(), x + 1)
    x.fill_(-1)
    for _ in range(2):
        with pytest.raises(ExecutionError):
            bound()
    x.fill_(3)
    torch.testing.assert_close(bound(), x + 1)
    torch.testing.assert_close(module(x), x + 1)


# A backend whose context refuses one call, as TensorRT does: by its return value.


class Faults:
    """Which calls fail now, and what they answer."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}

    def replace(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            return self.answers[name] if name in self.answers else method(*args)

        return call


class Wrapper:
    def __init__(self, wrapped: Any, faults: Faults) -> None:
        self._wrapped = wrapped
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        if name == "create_execution_context":
            made = self._faults.replace(name, found)()
            return lambda: made and Wrapper(made, self._faults)
        return self._faults.replace(name, found) if callable(found) else found


def faulty_backend(faults: Faults) -> Backend:
    class Runtime(reference.Runtime):
        def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
            engine = faults.replace("deserialize_cuda_engine", super().deserialize_cuda_engine)(
                serialized_engine
            )
            return engine and Wrapper(engine, faults)

    api = types.ModuleType("faulty")
    vars(api).update({name: getattr(reference, name) for name in reference.__all__})
    api.Runtime = Runtime  # type: ignore[attr-defined]
    api.__version__ = reference.__version__  # type: ignore[attr-defined]
    return Backend("faulty", api, runs_on_cpu=True)


@pytest.mark.parametrize("mode", ["fresh", "pre-allocated"])
@pytest.mark.parametrize("warm", [False, True], ids=["first call", "later call"])
@pytest.mark.parametrize(
    "call", ["set_input_shape", "set_tensor_address", "execute_async_v3", "set_optimization_profile_async"]
)
@pytest.mark.parametrize("answer", [False, None, 0], ids=str)
def test_a_refusal_is_noticed_and_forgotten(call: str, answer: Any, warm: bool, mode: str) -> None:
    faults = Faults()
    module = TRTModule(Engine.from_bytes(plans.profiles(), backend=faulty_backend(faults), device="cpu"))
    module.set_pre_allocated_outputs(mode == "pre-allocated")
    x = torch.randn(2, 7)
    if warm:
        module(x)
    faults.answers[call] = answer
    other = torch.randn(9, 7)  # of the second profile
    with pytest.raises(ExecutionError, match=rf"{call}.*failed\. TensorRT logged no reason"):
        module(other)
    faults.answers.clear()
    for tensor in (other, x, other):
        torch.testing.assert_close(module(tensor), eager_affine(tensor))


def test_an_output_allocator_that_is_refused() -> None:
    faults = Faults()
    module = TRTModule(Engine.from_bytes(plans.nonzero(), backend=faulty_backend(faults), device="cpu"))
    x = torch.eye(5)
    faults.answers["set_output_allocator"] = False
    with pytest.raises(ExecutionError, match="set_output_allocator"):
        module(x)
    faults.answers.clear()
    torch.testing.assert_close(module(x)[0], torch.nonzero(x))


def test_shapes_that_cannot_be_inferred() -> None:
    faults = Faults()
    module = TRTModule(Engine.from_bytes(plans.affine(), backend=faulty_backend(faults), device="cpu"))
    x = torch.randn(2, 7)
    faults.answers["infer_shapes"] = ["x"]
    with pytest.raises(ExecutionError, match=r"infer_shapes.*'x'"):
        module(x)
    faults.answers.clear()
    torch.testing.assert_close(module(x), eager_affine(x))


def test_no_engine_and_no_reason() -> None:
    faults = Faults()
    faults.answers["deserialize_cuda_engine"] = None
    with pytest.raises(PlanError, match=r"refuses the plan\. It logged no reason"):
        Engine.from_bytes(plans.affine(), backend=faulty_backend(faults), device="cpu")


def test_no_context() -> None:
    faults = Faults()
    engine = Engine.from_bytes(plans.affine(), backend=faulty_backend(faults), device="cpu")
    faults.answers["create_execution_context"] = None
    with pytest.raises(BackendError, match="no execution context"):
        TRTModule(engine)
    faults.answers.clear()
    x = torch.randn(2, 7)
    torch.testing.assert_close(TRTModule(engine)(x), eager_affine(x))


@pytest.mark.parametrize("answer", [(3, -1), (-1, 7)], ids=str)
def test_an_output_shape_that_stays_unknown_is_data_dependent_and_right(answer: tuple[int, ...]) -> None:
    faults = Faults()
    module = TRTModule(Engine.from_bytes(plans.affine(), backend=faulty_backend(faults), device="cpu"))
    faults.answers["get_tensor_shape"] = answer
    x = torch.randn(3, 7)
    torch.testing.assert_close(module(x), eager_affine(x))
