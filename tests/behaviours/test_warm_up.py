"""An engine runs before it is captured: TensorRT 8.6 refuses captures of the first run of some engines."""

from __future__ import annotations

import pytest
import torch

from tests.behaviours.recording import recorded
from trt_rt import TRTModule, enable_cudagraphs

pytestmark = [pytest.mark.behaviour(10), pytest.mark.gpu]


def _is_captured(stream):
    from cuda.bindings import driver

    error, status = driver.cuStreamIsCapturing(stream)
    assert error == driver.CUresult.CUDA_SUCCESS
    return status == driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("whole_graph", [False, True])
def test_a_context_runs_before_it_is_captured(make, whole_graph, bound):
    """Of every execution context that is captured, a run that was not captured came before."""
    if whole_graph and bound:
        pytest.skip("a program is not bound")
    case = make("relu")
    backend, calls = recorded(case.backend)
    make_call = calls.make
    runs = []

    def note(name, method, arguments):
        if name == "execute_async_v3":
            runs.append((method.__self__, _is_captured(arguments[0])))
        return make_call(name, method, arguments)

    calls.make = note
    program = TRTModule(case.engine(backend))
    if whole_graph:
        program = torch.nn.Sequential(program)
    with enable_cudagraphs(program, whole_graph=whole_graph) as run:
        for n in (3, 5, 3, 5):
            inputs = case.example(n)
            result = program.bind(*inputs)() if bound else run(*inputs)
            case.assert_right(result, case.expected(*inputs))
    captured = [index for index, (_, was_captured) in enumerate(runs) if was_captured]
    assert captured
    for index in captured:
        context = runs[index][0]
        assert any(earlier is context and not was_captured for earlier, was_captured in runs[:index])
