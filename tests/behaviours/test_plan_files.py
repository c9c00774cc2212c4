"""Every way to call an engine gives what a plain run of its plan gives; over any folder of plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import trt_rt
from tests.factories import quirky, reference
from tests.factories.plan_folder import VARIABLE, PlainCalls, inputs_for, plan_files
from trt_rt._core.dlpack import tensor_from_address
from trt_rt.backend import load

_KINDS = ("relu", "many", "nonzero", "shape_tensor", "profiles", "scalar")
_BATCHES = (1, 2, 8, 3)


def _sources() -> list[Any]:
    """Plans of the folder, and of the reference backend as it is and with habits of TensorRT 8.6."""
    made = [
        pytest.param((make, kind), id=f"{name}-{kind}")
        for name, make in (("reference", reference.make_cpu), ("quirky", quirky.make))
        for kind in _KINDS
    ]
    files = plan_files()
    if not files:
        reason = f"{VARIABLE} names no folder with plans"
        return [*made, pytest.param(None, marks=pytest.mark.skip(reason=reason), id="folder")]
    return [*made, *(pytest.param(path, marks=pytest.mark.gpu, id=path.stem) for path in files)]


@pytest.fixture
def engine_and_plan(request: pytest.FixtureRequest) -> tuple[trt_rt.Engine, bytes]:
    if isinstance(request.param, Path):
        return trt_rt.Engine.load(request.param), request.param.read_bytes()
    make, kind = request.param
    made = make(kind)
    return trt_rt.Engine.from_bytes(made["plan"], backend=made["backend"], device="cpu"), made["plan"]


def _as_they_are(module: trt_rt.TRTModule) -> AbstractContextManager[Any]:
    return nullcontext(module)


def _on_the_default_stream(module: trt_rt.TRTModule) -> AbstractContextManager[Any]:
    if module.engine.device.type == "cuda":
        return torch.cuda.stream(torch.cuda.default_stream(module.engine.device))
    return nullcontext(module)


def _into_out(module: trt_rt.TRTModule, inputs: Sequence[torch.Tensor]) -> Any:
    like = module(*inputs)
    out = torch.empty_like(like) if isinstance(like, torch.Tensor) else tuple(map(torch.empty_like, like))
    return module(*inputs, out=out)


def _bound(module: trt_rt.TRTModule, inputs: Sequence[torch.Tensor]) -> Any:
    call = module.bind(*inputs)
    call()
    return call()


def _called(module: trt_rt.TRTModule, inputs: Sequence[torch.Tensor]) -> Any:
    return module(*inputs)


# Control, way to call, and whether outputs whose size depends on data are refused.
_WAYS: dict[str, tuple[Callable[..., AbstractContextManager[Any]], Callable[..., Any], bool]] = {
    "call": (_as_they_are, _called, False),
    "default stream": (_on_the_default_stream, _called, False),
    "out": (_as_they_are, _into_out, True),
    "bind": (_as_they_are, _bound, False),
    "pre-allocated": (trt_rt.enable_pre_allocated_outputs, _called, False),
    "output allocator": (trt_rt.enable_output_allocator, _called, False),
    "dynamic resources": (trt_rt.use_dynamically_allocated_resources, _called, False),
    "graphs": (trt_rt.enable_cudagraphs, _called, True),
    "bind, graphs": (trt_rt.enable_cudagraphs, _bound, True),
}


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("engine_and_plan", _sources(), indirect=True)
def test_a_plan_gives_the_same_in_every_mode(engine_and_plan: tuple[trt_rt.Engine, bytes], way: str) -> None:
    engine, plan = engine_and_plan
    control, call, needs_sizes = _WAYS[way]
    if needs_sizes and _depends_on_data(engine, plan):
        pytest.skip("an output's size is known after the run only, which this mode refuses")
    plain = PlainCalls(engine.api, plan, engine.device)
    dtypes = tuple(tensor.dtype for tensor in engine.outputs)
    tried = 0
    with engine:
        module = trt_rt.TRTModule(engine)
        with control(module):
            for batch in _BATCHES * 2:  # the second time shapes, buffers and graphs are there
                if (inputs := inputs_for(engine, batch)) is None:
                    continue
                result = call(module, inputs)
                outputs = [result] if isinstance(result, torch.Tensor) else list(result)
                expected = plain(inputs, dtypes)
                for output, wanted in zip(outputs, expected, strict=True):
                    torch.testing.assert_close(output, wanted, equal_nan=True)
                tried += 1
    assert tried, "no profile admits any batch that was tried"


@pytest.mark.parametrize("engine_and_plan", _sources(), indirect=True)
def test_an_engine_runs_in_the_memory_that_it_is_given(
    engine_and_plan: tuple[trt_rt.Engine, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT returns nothing that says so: a pattern in the scratch memory is gone after a run.

    Some engines ask for scratch memory that they never write. Such an engine leaves a pattern also in the
    scratch memory of a plain run, to which trt_rt adds nothing.
    """
    engine, plan = engine_and_plan
    if engine.device.type == "cpu":
        pytest.skip("the reference backend only checks the size of its scratch memory")
    backend = type(load(engine.backend))
    given: list[tuple[int, int]] = []
    set_memory = backend.set_device_memory

    def note(self: trt_rt.Backend, context: Any, address: int, size: int) -> None:
        given.append((address, size))
        set_memory(self, context, address, size)

    monkeypatch.setattr(backend, "set_device_memory", note)
    inputs = next(found for batch in (32, 8, 3, 1) if (found := inputs_for(engine, batch)) is not None)
    with engine, trt_rt.use_dynamically_allocated_resources(trt_rt.TRTModule(engine)) as module:
        module(*inputs)
        address, size = given[-1]
        assert address % 512 == 0
        if size <= 1 or not _writes_scratch_memory(engine, plan, inputs, size):
            pytest.skip("the engine uses no scratch memory")
        scratch = tensor_from_address(address, (size,), torch.uint8, engine.device).fill_(0xA5)
        module(*inputs)
        assert len(given) == 1
        assert scratch.ne(0xA5).any()


def _writes_scratch_memory(
    engine: trt_rt.Engine, plan: bytes, inputs: tuple[torch.Tensor, ...], size: int
) -> bool:
    """Whether a plain run, in scratch memory of its own, changes that."""
    plain = PlainCalls(engine.api, plan, engine.device)
    managed = engine.api.ExecutionContextAllocationStrategy.USER_MANAGED
    plain.context = plain.engine.create_execution_context(managed)
    scratch = torch.full((size + 512,), 0xA5, dtype=torch.uint8, device=engine.device)
    plain.choose_profile(inputs)
    plain.context.set_device_memory(scratch.data_ptr() + -scratch.data_ptr() % 512, size)
    plain(inputs, tuple(tensor.dtype for tensor in engine.outputs))
    return bool(scratch.ne(0xA5).any())


def _depends_on_data(engine: trt_rt.Engine, plan: bytes) -> bool:
    inputs = next(found for batch in _BATCHES if (found := inputs_for(engine, batch)) is not None)
    plain = PlainCalls(engine.api, plan, engine.device)
    plain.choose_profile(inputs)
    targets = plain.bind(inputs, tuple(tensor.dtype for tensor in engine.outputs))
    return not all(isinstance(target, torch.Tensor) for target in targets)
