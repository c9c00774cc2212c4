"""Model repositories for Triton: their configuration is what Triton's own proto takes, their model runs."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import trt_rt
from trt_rt.cli import main
from trt_rt.integrations.triton import export_triton, repository
from trt_rt.integrations.triton.model_config import InstanceGroup, ModelConfig, ModelTensor


def _proto() -> Any:
    """Triton's published message ModelConfig, without the gRPC client in whose package it is."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    path = Path(next(iter(package.submodule_search_locations))) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parse(text: str) -> Any:
    from google.protobuf import text_format

    return text_format.Parse(text, _proto().ModelConfig())


class _Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 8)

    def forward(self, pixels: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.linear(pixels) * scale
        return {"scores": scores, "best": scores.argmax(1)}


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    model = _Model().eval()
    inputs = [
        trt_rt.Input(min_shape=(2, 4), opt_shape=(4, 4), max_shape=(6, 4), name="pixels"),
        trt_rt.Input(min_shape=(2, 1), opt_shape=(4, 1), max_shape=(6, 1), name="scale"),
    ]
    path = tmp_path / "classifier.pt2"
    trt_rt.save(trt_rt.compile(model, inputs=inputs, backend="reference"), path)
    return path, model


def test_the_configuration_is_what_tritons_own_proto_takes(
    archive: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    model = export_triton(archive[0], tmp_path / "repository", instances=2, max_queue_delay_us=50)
    assert model.files == ("1/model.pt2", "1/model.py", "config.pbtxt")
    config = _parse((model.folder / "config.pbtxt").read_text())
    proto = _proto()
    assert (config.name, config.backend, config.max_batch_size) == ("classifier", "python", 6)
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [
        ("pixels", proto.TYPE_FP32, [4]),
        ("scale", proto.TYPE_FP32, [1]),
    ]
    assert {each.name: (each.data_type, list(each.dims)) for each in config.output} == {
        "scores": (proto.TYPE_FP32, [8]),
        "best": (proto.TYPE_INT64, [1]),
    }
    [group] = config.instance_group
    assert (group.count, group.kind) == (2, proto.ModelInstanceGroup.KIND_CPU)
    assert config.dynamic_batching.max_queue_delay_microseconds == 50


def test_every_dtype_and_any_name_can_be_described() -> None:
    from trt_rt.integrations.triton import model_config

    names = ['a"b', "back\\slash", "naïve", "line\nbreak"]
    tensors = [ModelTensor(name, torch.float32, (-1, 3)) for name in names]
    tensors += [ModelTensor(str(dtype), dtype, ()) for dtype in model_config._TYPES]
    config = ModelConfig(
        "m",
        "tensorrt",
        0,
        tuple(tensors),
        (ModelTensor("s", torch.int64, (2,), True),),
        InstanceGroup("cuda", 1, (0, 1)),
    )
    parsed = _parse(config.dumps())
    assert [each.name for each in parsed.input[:4]] == names
    assert all(each.data_type != 0 for each in parsed.input)
    assert list(parsed.instance_group[0].profile) == ["0", "1"]
    assert parsed.output[0].is_shape_tensor
    assert not parsed.HasField("dynamic_batching")
    with pytest.raises(trt_rt.TRTError, match=r"Triton has no type for torch.complex64, which 'z' has"):
        ModelConfig(
            "m", "python", 0, (ModelTensor("z", torch.complex64, (2,)),), (), InstanceGroup("cpu", 1)
        ).dumps()


class _Tensor:
    """Stands in for pb_utils.Tensor."""

    def __init__(self, name: str, tensor: torch.Tensor) -> None:
        self.name, self.tensor = name, tensor

    def to_dlpack(self) -> Any:
        return torch.utils.dlpack.to_dlpack(self.tensor)

    @classmethod
    def from_dlpack(cls, name: str, tensor: torch.Tensor) -> _Tensor:
        assert tensor.dim() > 0, "Triton has no tensors without dimensions"
        for axis, size in enumerate(tensor.shape):
            if size != 1:
                assert tensor.stride(axis) == math.prod(tensor.shape[axis + 1 :]), "Triton wants C order"
        return cls(name, torch.from_dlpack(tensor))


class _Response:
    """Stands in for pb_utils.InferenceResponse."""

    def __init__(self, output_tensors: list[_Tensor] | None = None, error: _Error | None = None) -> None:
        self.outputs = {each.name: each.tensor for each in output_tensors or []}
        self.error = error


class _Error(Exception):
    """Stands in for pb_utils.TritonError."""

    INVALID_ARG, INTERNAL = "INVALID_ARG", "INTERNAL"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Starts a model as Triton's Python backend does; the server's own module is a stand-in."""
    utils: Any = types.ModuleType("triton_python_backend_utils")
    utils.Tensor, utils.InferenceResponse, utils.TritonError = _Tensor, _Response, _Error
    utils.get_input_tensor_by_name = lambda request, name: _Tensor(name, request[name])
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)

    def start(folder: Path) -> Any:
        spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        largest = _parse((folder / "config.pbtxt").read_text()).max_batch_size
        model.initialize(
            {
                "model_repository": str(folder),
                "model_version": "1",
                "model_instance_kind": "CPU",
                "model_instance_device_id": "0",
                "model_config": json.dumps({"max_batch_size": largest}),
            }
        )
        return model

    return start


def _request(rows: int) -> dict[str, torch.Tensor]:
    return {"pixels": torch.randn(rows, 4), "scale": torch.rand(rows, 1)}


@pytest.mark.parametrize("rows", [[1], [3], [1, 2, 3], [6, 6, 1], [13], [0, 2]])
def test_requests_of_any_size_get_their_own_rows(
    archive: tuple[Path, torch.nn.Module], tmp_path: Path, instance: Callable[..., Any], rows: list[int]
) -> None:
    path, eager = archive
    model = instance(export_triton(path, tmp_path / "repository").folder)
    requests = [_request(size) for size in rows]
    responses = model.execute(requests)
    model.finalize()
    for request, response in zip(requests, responses, strict=True):
        assert response.error is None
        torch.testing.assert_close(response.outputs, eager(**request))


def test_a_request_that_the_program_refuses_gets_its_own_error(
    archive: tuple[Path, torch.nn.Module], tmp_path: Path, instance: Callable[..., Any]
) -> None:
    path, eager = archive
    model = instance(export_triton(path, tmp_path / "repository").folder)
    good, bad = _request(2), _request(2) | {"pixels": torch.zeros(2, 5)}
    answers = model.execute([good, bad, good])
    torch.testing.assert_close(answers[0].outputs, eager(**good))
    torch.testing.assert_close(answers[2].outputs, eager(**good))
    assert str(answers[1].error) == "the input 'pixels' has shape [2, 5]; allowed is [0 or more, 4]."
    assert answers[1].error.code == _Error.INVALID_ARG


def test_without_batching_the_batch_is_a_size_like_the_others(
    archive: tuple[Path, torch.nn.Module], tmp_path: Path, instance: Callable[..., Any]
) -> None:
    path, eager = archive
    folder = export_triton(path, tmp_path / "repository", batching=False).folder
    config = _parse((folder / "config.pbtxt").read_text())
    assert config.max_batch_size == 0
    assert [list(each.dims) for each in config.input] == [[-1, 4], [-1, 1]]
    request = _request(5)
    [answer] = instance(folder).execute([request])
    torch.testing.assert_close(answer.outputs, eager(**request))


def test_tensors_without_dimensions_have_one_for_triton(tmp_path: Path, instance: Callable[..., Any]) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return x.sum() * scale

    path = tmp_path / "sum.pt2"
    trt_rt.save(torch.export.export(Model(), (torch.ones(3), torch.tensor(2.0))), path)
    folder = export_triton(path, tmp_path / "repository").folder
    config = _parse((folder / "config.pbtxt").read_text())
    for each in [config.input[1], config.output[0]]:
        assert list(each.dims) == [1]
        assert not each.HasField("reshape")  # which Triton refuses without a batch
    [answer] = instance(folder).execute([{"x": torch.ones(3), "scale": torch.tensor([4.0])}])
    assert answer.outputs["output"].tolist() == [12.0]


def test_results_with_sizes_of_0_and_1_have_strides_in_c_order(
    tmp_path: Path, instance: Callable[..., Any]
) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return torch.nonzero(x), x[:1].t(), x.t()

    path = tmp_path / "model.pt2"
    trt_rt.save(torch.export.export(Model(), (torch.zeros(2, 3),)), path)
    x = torch.zeros(2, 3)
    [answer] = instance(export_triton(path, tmp_path / "repository").folder).execute([{"x": x}])
    assert answer.error is None
    assert list(answer.outputs["output_0"].shape) == [0, 2]
    assert list(answer.outputs["output_1"].shape) == [3, 1]
    assert list(answer.outputs["output_2"].shape) == [3, 2]


@pytest.fixture
def unlimited(tmp_path: Path) -> Path:
    """A program without a largest batch."""
    rows = {0: torch.export.Dim.AUTO}
    exported = torch.export.export(torch.nn.ReLU(), (torch.randn(2, 3),), dynamic_shapes=(rows,))
    path = tmp_path / "relu.pt2"
    trt_rt.save(exported, path)
    return path


def test_a_program_without_a_largest_batch_has_the_batches_that_are_asked_for(
    unlimited: Path, tmp_path: Path
) -> None:
    model = export_triton(unlimited, tmp_path / "repository")
    assert model.config.max_batch_size == 0
    [each] = model.config.inputs
    assert (each.name, each.dims) == ("input", (-1, 3))  # the parameter's name, which is also one of Python's
    model = export_triton(unlimited, tmp_path / "repository", max_batch_size=16)
    assert model.config.max_batch_size == 16
    assert model.config.inputs[0].dims == (3,)


def test_a_largest_batch_above_the_programs_is_run_in_several_calls(
    archive: tuple[Path, torch.nn.Module], tmp_path: Path, instance: Callable[..., Any]
) -> None:
    path, eager = archive
    folder = export_triton(path, tmp_path / "repository", max_batch_size=20).folder
    assert _parse((folder / "config.pbtxt").read_text()).max_batch_size == 20
    request = _request(20)
    [answer] = instance(folder).execute([request])
    torch.testing.assert_close(answer.outputs, eager(**request))


class _Pair(torch.nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return left + right.sum(1, keepdim=True), left.sum(1)


@pytest.fixture
def one_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Saves a program that is one engine. Only its backend is not TensorRT."""
    monkeypatch.setattr(repository, "_TENSORRT", ("reference",))

    def save(low: int, best: int, high: int) -> Path:
        inputs = [
            trt_rt.Input(min_shape=(low, size), opt_shape=(best, size), max_shape=(high, size), name=name)
            for name, size in (("left", 4), ("right", 2))
        ]
        path = tmp_path / "pair.pt2"
        trt_rt.save(trt_rt.compile(_Pair().eval(), inputs=inputs, backend="reference"), path)
        return path

    return save


def test_one_engine_is_a_plan_for_tritons_tensorrt_backend(
    one_engine: Callable[..., Path], tmp_path: Path
) -> None:
    path = one_engine(1, 4, 6)
    model = export_triton(path, tmp_path / "repository", instances=2)
    assert model.files == ("1/model.plan", "config.pbtxt")
    [module] = trt_rt.load(path).engines.values()
    assert (model.folder / "1" / "model.plan").read_bytes() == module.engine.serialize()
    config = _parse((model.folder / "config.pbtxt").read_text())
    assert (config.backend, config.max_batch_size) == ("tensorrt", 6)
    assert {each.name: list(each.dims) for each in config.input} == {"left": [4], "right": [2]}
    assert [(list(each.dims), each.HasField("reshape")) for each in config.output] == [
        ([4], False),
        ([1], True),
    ]
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    [group] = config.instance_group
    assert (group.count, group.kind) == (2, _proto().ModelInstanceGroup.KIND_GPU)
    model = export_triton(path, tmp_path / "repository", max_batch_size=3)
    config = _parse((model.folder / "config.pbtxt").read_text())
    assert config.max_batch_size == 3
    assert not config.dynamic_batching.preferred_batch_size  # Triton refuses one above the largest


def test_an_engine_that_wants_several_rows_has_no_batches_in_tritons_tensorrt_backend(
    one_engine: Callable[..., Path], tmp_path: Path
) -> None:
    path = one_engine(2, 4, 8)
    config = export_triton(path, tmp_path / "repository").config
    assert (config.backend, config.max_batch_size) == ("tensorrt", 0)
    assert sorted(each.dims for each in config.inputs) == [(-1, 2), (-1, 4)]
    assert export_triton(path, tmp_path / "repository", layout="python").config.max_batch_size == 8
    with pytest.raises(trt_rt.TRTError, match="For Triton's TensorRT backend it must start at 1"):
        export_triton(path, tmp_path / "repository", max_batch_size=8)


def test_sizes_that_only_look_like_a_batch_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Table(torch.nn.Module):
        def forward(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
            return rows @ columns.t()

    monkeypatch.setattr(repository, "_TENSORRT", ("reference",))
    inputs = [
        trt_rt.Input(min_shape=(1, 4), opt_shape=(4, 4), max_shape=(8, 4), name=name)
        for name in ("rows", "columns")
    ]
    path = tmp_path / "table.pt2"
    trt_rt.save(trt_rt.compile(Table().eval(), inputs=inputs, backend="reference"), path)
    config = export_triton(path, tmp_path / "repository").config
    assert (config.backend, config.max_batch_size) == ("tensorrt", 0)
    assert [each.dims for each in config.outputs] == [(-1, -1)]


def test_an_engine_with_a_tensor_without_dimensions_is_for_the_python_backend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum()

    monkeypatch.setattr(repository, "_TENSORRT", ("reference",))
    path = tmp_path / "sum.pt2"
    trt_rt.save(trt_rt.compile(Model().eval(), inputs=[torch.ones(2, 3)], backend="reference"), path)
    assert export_triton(path, tmp_path / "repository").config.backend == "python"


def test_an_earlier_version_is_replaced_and_another_one_stays(
    archive: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    export_triton(archive[0], repository, name="m")
    (repository / "m" / "1" / "model.py").write_text("old")
    export_triton(archive[0], repository, name="m", version=2)
    assert (repository / "m" / "1" / "model.py").read_text() == "old"
    export_triton(archive[0], repository, name="m")
    assert (repository / "m" / "1" / "model.py").read_text() != "old"
    assert sorted(path.name for path in (repository / "m").iterdir()) == ["1", "2", "config.pbtxt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layout", "tensorrt"], "is not one TensorRT engine"),
        (["--name", "../up"], "cannot be a model's name"),
        (["--max-batch-size", "2147483648"], "max_batch_size is 2147483648; Triton takes 1 to 2147483647."),
        (["--instances", "2147483648"], "instances is 2147483648; Triton takes 1 to 2147483647."),
        (["--max-batch-size", "4", "--no-batching"], "cannot be given without batching"),
    ],
)
def test_what_cannot_be_written_is_told_and_writes_nothing(
    archive: tuple[Path, torch.nn.Module],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert main(["export-triton", str(archive[0]), "-o", str(tmp_path / "repository"), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "repository").exists()


def test_the_command_tells_what_it_wrote(
    archive: tuple[Path, torch.nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export-triton", str(archive[0]), "-o", str(tmp_path / "repository")]) == 0
    written = capsys.readouterr().out
    assert "for Triton's python backend, batches of up to 6" in written
    assert main(["export-triton", "--json", str(archive[0]), "-o", str(tmp_path / "repository")]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == ["1/model.pt2", "1/model.py", "config.pbtxt"]


def test_a_largest_batch_needs_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "fixed.pt2"
    trt_rt.save(torch.export.export(torch.nn.ReLU(), (torch.randn(2, 3),)), path)
    with pytest.raises(trt_rt.TRTError, match="has no batch for max_batch_size=8: the first dimension"):
        export_triton(path, tmp_path / "repository", max_batch_size=8)


def test_a_program_with_results_that_are_no_tensors_is_refused(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return x * 2, 3

    path = tmp_path / "model.pt2"
    trt_rt.save(trt_rt.compile(Model().eval(), inputs=[torch.zeros(2, 2)], backend="reference"), path)
    with pytest.raises(trt_rt.TRTError, match="a result that is no tensor"):
        export_triton(path, tmp_path / "repository")
