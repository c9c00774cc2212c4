"""What engines and contexts tell: attributes, layers, times, and their own plan."""

from __future__ import annotations

import gc
import json
import weakref

import pytest
import torch

from tests.reference import plans
from tests.reference.harness import RecordingLogger, Session
from trt_rt import reference as trt

JSON = trt.LayerInformationFormat.JSON
ONELINE = trt.LayerInformationFormat.ONELINE


class RecordingProfiler(trt.IProfiler):
    def __init__(self) -> None:
        trt.IProfiler.__init__(self)
        self.times: list[tuple[str, float]] = []

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        self.times.append((layer_name, ms))


def test_attributes(device: str) -> None:
    engine = Session(plans.streaming(device), device).engine
    assert engine.name == "streaming"
    assert engine.num_aux_streams == 0
    assert not engine.refittable
    assert engine.engine_capability == trt.EngineCapability.STANDARD
    assert engine.hardware_compatibility_level == trt.HardwareCompatibilityLevel.NONE
    assert engine.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    assert engine.get_tensor_format("x") == trt.TensorFormat.LINEAR
    assert engine.get_tensor_format_desc("x") == "Row major linear FLOAT format"
    assert engine.get_tensor_bytes_per_component("x") == 4
    assert engine.get_tensor_vectorized_dim("x") == -1


def test_layers_as_json(device: str) -> None:
    session = Session(plans.affine(device=device), device)
    inspector = session.engine.create_engine_inspector()
    found = json.loads(inspector.get_engine_information(JSON))
    assert found["Bindings"] == ["x", "output0"]
    types = [layer["LayerType"] for layer in found["Layers"]]
    assert types == ["aten.relu.default", "aten.mul.Tensor", "aten.add.Tensor"]
    assert len(types) == session.engine.num_layers
    assert found["Layers"][0]["Inputs"] == [{"Name": "x"}]
    assert json.loads(inspector.get_layer_information(2, JSON)) == found["Layers"][2]
    assert found["Layers"][0]["Outputs"][0]["Dimensions"] is None


def test_layers_with_the_shapes_of_a_context(device: str) -> None:
    session = Session(plans.affine(device=device), device)
    inspector = session.engine.create_engine_inspector()
    inspector.execution_context = session.context
    assert inspector.execution_context is session.context
    assert json.loads(inspector.get_layer_information(0, JSON))["Outputs"][0]["Dimensions"] is None
    session.run(torch.zeros(5, 7))
    assert json.loads(inspector.get_layer_information(0, JSON))["Outputs"][0]["Dimensions"] == [5, 7]


def test_layers_as_lines() -> None:
    session = Session(plans.affine())
    inspector = session.engine.create_engine_inspector()
    lines = inspector.get_engine_information(ONELINE).splitlines()
    assert lines[0] == "relu = aten.relu.default(x)"
    assert inspector.get_layer_information(0, ONELINE) == lines[0]
    for index in (3, -1):
        assert inspector.get_layer_information(index, ONELINE) == ""
        assert "is not in [0, 3)" in session.logger.take_error()


def test_the_profiler_gets_every_layer_of_every_run(device: str) -> None:
    session = Session(plans.affine(device=device), device)
    profiler = session.context.profiler = RecordingProfiler()
    assert session.context.profiler is profiler
    session.run(torch.zeros(5, 7))
    assert len(profiler.times) == 3
    assert profiler.times[0][0] == "relu"
    assert all(milliseconds >= 0 for _, milliseconds in profiler.times)
    assert session.enqueue()
    assert len(profiler.times) == 6
    session.context.profiler = None
    assert session.enqueue()
    assert len(profiler.times) == 6


def test_the_profiler_can_wait_to_be_asked(device: str) -> None:
    session = Session(plans.affine(device=device), device)
    context = session.context
    assert context.enqueue_emits_profile
    context.enqueue_emits_profile = False
    profiler = context.profiler = RecordingProfiler()
    assert not context.report_to_profiler()
    assert "nothing has run with it" in session.logger.take_error()
    session.run(torch.zeros(5, 7))
    assert profiler.times == []
    assert context.report_to_profiler()
    assert len(profiler.times) == 3


def test_a_profiler_that_raises_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(plans.affine())
    session.context.profiler = trt.IProfiler()
    session.run(torch.zeros(5, 7))
    assert "must define report_layer_time" in capsys.readouterr().err


def test_the_profiler_that_prints(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(plans.affine())
    session.context.profiler = trt.Profiler()
    session.run(torch.zeros(5, 7))
    assert capsys.readouterr().out.startswith("relu: ")


def test_an_engine_serializes_to_its_plan(device: str) -> None:
    plan = plans.streaming(device)
    engine = Session(plan, device).engine
    memory = engine.serialize()
    assert memory.nbytes == len(plan)
    assert memory.dtype == trt.DataType.INT8
    assert bytes(memory) == plan
    assert memoryview(memory) == plan
    assert Session(memory, device).engine.num_io_tensors == 2


def test_serialization_options() -> None:
    session = Session(plans.streaming())
    config = session.engine.create_serialization_config()
    assert bytes(session.engine.serialize_with_config(config)) == plans.streaming()
    assert config.set_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    assert config.get_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    assert config.flags == 1
    assert session.engine.serialize_with_config(config) is None
    assert "cannot leave out its weights" in session.logger.take_error()
    assert config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    assert config.flags == 0
    config.flags = 4
    assert config.get_flag(trt.SerializationFlag.INCLUDE_REFIT)


def test_names_of_contexts() -> None:
    context = Session(plans.affine()).context
    assert context.name == ""
    context.name = "first"
    assert context.name == "first"


def test_the_plan_can_be_dropped_and_changed_after_loading() -> None:
    plan = bytearray(plans.streaming())
    session = Session(plan)
    plan[:] = bytes(len(plan))
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(session.run(x)[0], plans.convolutions()(x).detach(), rtol=1e-4, atol=1e-4)


def test_parts_keep_alive_what_they_need(device: str) -> None:
    runtime = trt.Runtime(RecordingLogger())
    engine = runtime.deserialize_cuda_engine(plans.affine(device=device))
    context = engine.create_execution_context()
    alive = [weakref.ref(part) for part in (runtime, engine)]
    del runtime, engine
    gc.collect()
    assert all(part() is not None for part in alive)
    assert context.engine.num_io_tensors == 2
    del context
    gc.collect()
    assert all(part() is None for part in alive)


def test_dims_behave_as_the_real_ones() -> None:
    dims = trt.Dims((1, -1))
    assert dims == (1, -1)
    assert dims == [1, -1]
    assert dims == (1, -1)
    assert dims != (1, 2)
    assert len(dims) == 2
    assert dims[1] == -1
    assert dims[0:1] == (1,)
    assert str(dims) == "(1, -1)"
    assert trt.Dims() == ()
    assert trt.Dims.MAX_DIMS == 8


def test_enums_behave_as_the_real_ones() -> None:
    assert int(trt.DataType.BF16) == 7
    assert trt.DataType.FLOAT != 0
    assert trt.DataType(0) is trt.DataType.FLOAT
    assert str(trt.DataType.FLOAT) == "DataType.FLOAT"
    assert trt.DataType.FP4.itemsize == 0.5
    assert trt.DataType.E8M0.itemsize is None
    assert list(trt.TensorIOMode.__members__) == ["NONE", "INPUT", "OUTPUT"]
    assert trt.ILogger.ERROR < trt.ILogger.INFO
    assert str(trt.ILogger.ERROR) == "Severity.ERROR"
    with pytest.raises(NotImplementedError, match="must define log"):
        trt.ILogger().log(trt.ILogger.ERROR, "")
