"""A real Triton server, without a GPU: it answers as the exported programs do."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import trt_rt
from tests.integrations.triton_server import TritonServer, triton_server, why_not
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt.integrations.triton import export_triton, repository

_WHY_NOT = why_not()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(_WHY_NOT is not None, reason=_WHY_NOT or "")]

_LARGEST = 6
_FOREVER_US = 3_600_000_000


class _Classifier(torch.nn.Module):
    """Rows of two inputs, one of them without further dimensions; a row whose kind is unknown is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 8)
        self.kinds = torch.nn.Embedding(10, 8)

    def forward(self, pixels: torch.Tensor, kind: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.linear(pixels) + self.kinds(kind)
        return {"scores": scores, "best": scores.argmax(1)}


class _Everything(torch.nn.Module):
    """Every dtype, nested arguments and results, no dimensions, and sizes of 0 and 1."""

    def forward(
        self, numbers: dict[str, torch.Tensor], flag: torch.Tensor, scale: torch.Tensor
    ) -> dict[str, Any]:
        return {
            "next": {name: tensor + 1 for name, tensor in numbers.items()},
            "places": torch.nonzero(flag),
            "column": flag[:1].t(),
            "opposite": ~flag,
            "pair": (scale, [scale.reshape(1, 1) * 2]),
        }


_NUMBERS = {
    str(dtype).removeprefix("torch."): torch.arange(12).reshape(3, 4).to(dtype)
    for dtype in [
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint8,
    ]
}


@dataclass
class _Served:
    """A server with its models. "patient" is the classifier that waits for a whole batch, however long."""

    server: TritonServer
    repository: Path
    classifier: _Classifier
    everything: trt_rt.Program
    rows_sent: int = 0

    def infer_together(
        self, requests: Sequence[dict[str, torch.Tensor]]
    ) -> tuple[list[tuple[int, Any]], Counter[int]]:
        """Send requests to "patient" at once; return their answers, and how often each batch size was run."""
        before = self._batches()
        self.rows_sent += sum(len(request["pixels"]) for request in requests)
        with ThreadPoolExecutor(len(requests)) as threads:
            answers = list(threads.map(lambda each: self.server.infer("patient", **each), requests))
        return answers, self._batches() - before

    def _batches(self) -> Counter[int]:
        """How often each batch size was run. The server counts a batch after it has answered its requests."""
        end = time.monotonic() + SECONDS_UNTIL_DEADLOCK
        while True:
            _, answer = self.server.get("/v2/models/patient/stats")
            [model] = answer["model_stats"]
            runs = {each["batch_size"]: each["compute_infer"]["count"] for each in model["batch_stats"]}
            if sum(size * count for size, count in runs.items()) == self.rows_sent:
                return Counter(runs)
            assert time.monotonic() < end, f"{self.rows_sent} rows were sent; what ran, by batch size: {runs}"
            time.sleep(0.01)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Served]:
    folder = tmp_path_factory.mktemp("triton")
    models = folder / "repository"
    classifier = _Classifier().eval()
    inputs = [
        trt_rt.Input(min_shape=(2, 4), opt_shape=(4, 4), max_shape=(_LARGEST, 4), name="pixels"),
        trt_rt.Input(min_shape=(2,), opt_shape=(4,), max_shape=(_LARGEST,), dtype=torch.int64, name="kind"),
    ]
    trt_rt.save(trt_rt.compile(classifier, inputs=inputs, backend="reference"), folder / "classifier.pt2")
    export_triton(folder / "classifier.pt2", models, max_queue_delay_us=1000)
    export_triton(folder / "classifier.pt2", models, name="patient", max_queue_delay_us=_FOREVER_US)
    arguments = (_NUMBERS, torch.ones(3, 4, dtype=torch.bool), torch.tensor(2.0))
    trt_rt.save(torch.export.export(_Everything(), arguments), folder / "everything.pt2")
    export_triton(folder / "everything.pt2", models)
    with triton_server(models, folder) as server:
        names = ("classifier", "everything", "patient")
        with ThreadPoolExecutor(len(names)) as threads:
            assert list(threads.map(server.load, names)) == [(200, None)] * len(names)
        yield _Served(server, models, classifier, trt_rt.load(folder / "everything.pt2"))


def _request(rows: int) -> dict[str, torch.Tensor]:
    return {"pixels": torch.randn(rows, 4), "kind": torch.randint(10, (rows, 1))}


def _assert_right(served: _Served, request: dict[str, torch.Tensor], answer: tuple[int, Any]) -> None:
    status, outputs = answer
    assert status == 200, outputs
    with torch.no_grad():
        expected = served.classifier(request["pixels"], request["kind"][:, 0])
    torch.testing.assert_close(outputs["scores"], expected["scores"])
    # What has a batch only has a size of 1 behind it at the server.
    assert torch.equal(outputs["best"], expected["best"][:, None])


def test_the_server_joins_requests_and_each_gets_its_rows(served: _Served) -> None:
    requests = [_request(rows) for rows in (1, 2, 3)]
    answers, batches = served.infer_together(requests)
    for request, answer in zip(requests, answers, strict=True):
        _assert_right(served, request, answer)
    assert batches == {_LARGEST: 1}


def test_too_few_rows_are_filled_up_and_too_many_are_refused_by_the_server(served: _Served) -> None:
    request = _request(1)
    _assert_right(served, request, served.server.infer("classifier", **request))
    status, message = served.server.infer("classifier", **_request(_LARGEST + 1))
    assert status == 400
    assert "batch-size must be <= 6 for 'classifier'" in message


def test_a_row_that_the_program_refuses_spoils_no_other_request(served: _Served) -> None:
    good, bad = _request(3), _request(3) | {"kind": torch.full((3, 1), 10)}
    answers, _ = served.infer_together([good, bad])
    _assert_right(served, good, answers[0])
    status, message = answers[1]
    assert status == 500
    assert "index out of range" in message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pixels": torch.zeros(2, 5)}, "unexpected shape for input 'pixels'"),
        ({"pixels": torch.zeros(2, 4, dtype=torch.float64)}, "data-type is 'FP64'"),
        ({"other": torch.zeros(2, 4)}, "expected 2 inputs but got 3"),
    ],
)
def test_the_server_refuses_what_the_configuration_does_not_allow(
    served: _Served, changed: dict[str, torch.Tensor], message: str
) -> None:
    status, answer = served.server.infer("classifier", **(_request(2) | changed))
    assert status == 400
    assert message in answer


def _everything(flag: torch.Tensor) -> dict[str, torch.Tensor]:
    numbers = {f"numbers_{name}": tensor for name, tensor in _NUMBERS.items()}
    return numbers | {"flag": flag, "scale": torch.tensor([3.0])}


@pytest.mark.parametrize("flag", [torch.eye(3, 4, dtype=torch.bool), torch.zeros(3, 4, dtype=torch.bool)])
def test_every_dtype_and_structure_comes_back_as_from_the_program(
    served: _Served, flag: torch.Tensor
) -> None:
    expected = served.everything(_NUMBERS, flag, torch.tensor(3.0))
    status, outputs = served.server.infer("everything", **_everything(flag))
    assert status == 200, outputs
    assert outputs.keys() == {f"next_{name}" for name in _NUMBERS} | {
        "places",
        "column",
        "opposite",
        "pair_0",
        "pair_1_0",
    }
    for name in _NUMBERS:
        assert torch.equal(outputs[f"next_{name}"], expected["next"][name])
    for name in ("places", "column", "opposite"):
        assert torch.equal(outputs[name], expected[name])
    assert torch.equal(outputs["pair_0"], expected["pair"][0].reshape(1))
    assert torch.equal(outputs["pair_1_0"], expected["pair"][1][0])


def test_json_and_grpc_give_what_bytes_give(served: _Served) -> None:
    request = _request(_LARGEST)
    _assert_right(served, request, served.server.infer("classifier", **request))
    # As JSON, which people type.
    body = {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": list(request[name].shape)}
            | {"data": request[name].tolist()}
            for name, datatype in (("pixels", "FP32"), ("kind", "INT64"))
        ],
        "outputs": [{"name": "best"}],
    }
    status, answer = served.server.call("/v2/models/classifier/infer", body)
    [output] = answer["outputs"]
    assert (status, output["name"], output["shape"]) == (200, "best", [_LARGEST, 1])
    with torch.no_grad():
        expected = served.classifier(request["pixels"], request["kind"][:, 0])
    assert output["data"] == expected["best"].tolist()
    # With Triton's client for gRPC, in a process of its own: gRPC's threads would stay in this one.
    code = f"""
import json, numpy as np, tritonclient.grpc as grpc
client = grpc.InferenceServerClient("127.0.0.1:{served.server.grpc}")
pixels = np.array({request["pixels"].tolist()}, np.float32)
kind = np.array({request["kind"].tolist()}, np.int64)
tensors = [grpc.InferInput("pixels", pixels.shape, "FP32"), grpc.InferInput("kind", kind.shape, "INT64")]
for tensor, values in zip(tensors, (pixels, kind)):
    tensor.set_data_from_numpy(values)
print(json.dumps(client.infer("classifier", tensors).as_numpy("scores").tolist()))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS_UNTIL_DEADLOCK
    )
    assert ran.returncode == 0, ran.stderr
    torch.testing.assert_close(torch.tensor(json.loads(ran.stdout)), expected["scores"])


def test_the_server_changes_nothing_in_the_configuration(served: _Served) -> None:
    _, config = served.server.get("/v2/models/classifier/config")
    assert (config["backend"], config["max_batch_size"]) == ("python", _LARGEST)
    [group] = config["instance_group"]
    assert (group["kind"], group["count"]) == ("KIND_CPU", 1)
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 1000
    _, description = served.server.get("/v2/models/everything")
    shapes = {each["name"]: each["shape"] for each in description["outputs"]}
    assert shapes["places"] == [-1, 2]
    assert shapes["pair_0"] == [1]
    assert math.prod(shapes["column"]) == 4


def test_a_damaged_file_is_told_and_a_whole_one_is_loaded_in_its_place(
    served: _Served, tmp_path: Path
) -> None:
    path = tmp_path / "relu.pt2"
    trt_rt.save(torch.export.export(torch.nn.ReLU(), (torch.randn(2, 3),)), path)
    export_triton(path, served.repository)
    file = served.repository / "relu" / "1" / "model.pt2"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    status, answer = served.server.load("relu")
    assert status == 400
    assert "ArchiveError" in answer["error"]
    assert "The file is damaged or was changed: copy it again." in answer["error"]
    # The others go on, and a new version of this one starts and ends.
    request = _request(_LARGEST)
    _assert_right(served, request, served.server.infer("classifier", **request))
    export_triton(path, served.repository)
    assert served.server.load("relu") == (200, None)
    x = torch.randn(2, 3)
    status, outputs = served.server.infer("relu", input=x)
    assert status == 200, outputs
    assert torch.equal(outputs["output"], x.relu())
    assert served.server.unload("relu") == (200, None)
    status, message = served.server.infer("relu", input=x)
    assert status == 404
    assert "unknown model: 'relu'" in message


def test_the_server_lacks_only_the_backend_for_one_engine(
    served: _Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_TENSORRT", ("reference",))
    inputs = [trt_rt.Input(min_shape=(1, 4), opt_shape=(2, 4), max_shape=(8, 4), name="x")]
    path = tmp_path / "engine.pt2"
    program = trt_rt.compile(torch.nn.Linear(4, 2).eval(), inputs=inputs, backend="reference")
    trt_rt.save(program, path)
    model = export_triton(path, served.repository)
    assert model.config.backend == "tensorrt"
    # Without a GPU the server refuses instances on one before it looks for the backend.
    config = model.folder / "config.pbtxt"
    config.write_text(config.read_text().replace("KIND_GPU", "KIND_CPU"))
    status, answer = served.server.load("engine")
    assert status == 400
    assert "unable to find backend library for backend 'tensorrt'" in answer["error"]
