"""Model repositories for Triton: their configuration is what Triton's own proto takes, their model runs."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import trt_rt
from trt_rt.cli import main
from trt_rt.integrations.triton import export_triton
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
        return cls(name, torch.from_dlpack(tensor))


class _Response:
    """Stands in for pb_utils.InferenceResponse."""

    def __init__(self, output_tensors: list[_Tensor] | None = None, error: Exception | None = None) -> None:
        self.outputs = {each.name: each.tensor for each in output_tensors or []}
        self.error = error


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Starts a model as Triton's Python backend does; the server's own module is a stand-in."""
    utils: Any = types.ModuleType("triton_python_backend_utils")
    utils.Tensor, utils.InferenceResponse, utils.TritonError = _Tensor, _Response, RuntimeError
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


def test_a_program_with_results_that_are_no_tensors_is_refused(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return x * 2, 3

    path = tmp_path / "model.pt2"
    trt_rt.save(trt_rt.compile(Model().eval(), inputs=[torch.zeros(2, 2)], backend="reference"), path)
    with pytest.raises(trt_rt.TRTError, match="a result that is no tensor"):
        export_triton(path, tmp_path / "repository")
