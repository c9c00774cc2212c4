"""A real Ray Serve on this machine: two programs over HTTP and gRPC, under load, with replicas that die."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import trt_rt
from tests.integrations.ports import free_ports
from trt_rt.integrations.ray_serve import deployment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]

_ROOT = Path(__file__).parents[2]


class _Classifier(torch.nn.Module):
    def __init__(self, scores: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, scores)

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": self.linear(features)}


@dataclass
class _Server:
    http: int
    grpc: int
    process: subprocess.Popen[str]
    models: dict[str, torch.nn.Module]

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=120)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("POST", path, body, {"Content-Type": "application/json"} | names)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def infer(self, model: str, features: torch.Tensor) -> tuple[int, Any]:
        entry = {"name": "features", "datatype": "FP32", "shape": list(features.shape)}
        body = json.dumps({"inputs": [entry | {"data": features.flatten().tolist()}]}).encode()
        status, answer = self.post(f"/v2/models/{model}/infer", body)
        if status != 200:
            return status, answer["error"]
        [output] = answer["outputs"]
        return status, torch.tensor(output["data"]).reshape(output["shape"])

    def kill_a_replica(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "killed"


def _environment(folder: Path) -> dict[str, str]:
    ours = {"PYTHONPATH": str(_ROOT), "TRT_RT_CACHE_DIR": str(folder / "cache")}
    return os.environ | ours | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


def _started(command: list[str], ready: str, folder: Path, *, cwd: Path) -> subprocess.Popen[str]:
    """Start a server, and return when it has printed the line that says that it answers."""
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_environment(folder),
            cwd=cwd,
        )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    if not any(line.strip() == ready for line in lines):
        process.kill()
        process.communicate()
        pytest.fail((folder / "log").read_text()[-3000:])
    return process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    models: dict[str, torch.nn.Module] = {"small": _Classifier(3).eval(), "large": _Classifier(7).eval()}
    for name, model in models.items():
        features = trt_rt.Input(min_shape=(2, 16), opt_shape=(4, 16), max_shape=(8, 16))
        trt_rt.save(trt_rt.compile(model, inputs=[features], backend="reference"), folder / f"{name}.pt2")
    ports = free_ports(2)
    command = [sys.executable, "-W", "ignore", "-m", "tests.integrations.ray_server", *map(str, ports)]
    command += [f"{name}={folder / name}.pt2" for name in models]
    process = _started(command, "ready", folder, cwd=_ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield _Server(*ports, process, models)
    finally:
        process.stdin.close()
        process.wait(120)
        process.stdout.close()


@pytest.mark.parametrize("model", ["small", "large"])
@pytest.mark.parametrize("rows", [1, 2, 8, 21])
def test_each_model_answers_requests_of_every_size(server: _Server, model: str, rows: int) -> None:
    features = torch.randn(rows, 16)
    status, scores = server.infer(model, features)
    assert status == 200, scores
    torch.testing.assert_close(scores, server.models[model](features)["scores"].detach())


def test_grpc_answers_a_client_that_others_wrote(server: _Server) -> None:
    script = f"""
import numpy as np, tritonclient.grpc as grpc
client = grpc.InferenceServerClient("127.0.0.1:{server.grpc}")
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("small")
assert [each.name for each in client.get_model_metadata("small").inputs] == ["features"]
tensor = grpc.InferInput("features", [3, 16], "FP32")
tensor.set_data_from_numpy(np.ones((3, 16), np.float32))
print(client.infer("small", [tensor]).as_numpy("scores").tolist())
try:
    client.infer("missing", [tensor])
except Exception as error:
    print(error)
"""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    scores, refusal = found.stdout.splitlines()
    expected = server.models["small"](torch.ones(3, 16))["scores"].detach()
    torch.testing.assert_close(torch.tensor(json.loads(scores)), expected)
    assert "there is no model 'missing'" in refusal


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("/v2/models/small/infer", b"{", {}, 400, "the body is not JSON"),
        ("/v2/models/small/infer", b"{}", {}, 400, "the input 'features' is missing"),
        ("/v2/models/none/infer", b"{}", {}, 404, "there is no model 'none'. The models are small, large."),
        ("/v2/models/small/infer", b"{}", {"Content_Type": "text/html"}, 415, "'text/html' is not one of"),
        ("/v2/models/small/infer", b"x" * 100_001, {}, 413, "more than 100000 bytes"),
        ("/v2/models/small", b"{}", {}, 404, "is nothing that this server does"),
    ],
)
def test_a_bad_request_gets_a_status_and_a_sentence(
    server: _Server, path: str, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    found, answer = server.post(path, body, **headers)
    assert found == status
    assert message in answer["error"]


def test_a_wrong_shape_is_refused_and_says_what_is_allowed(server: _Server) -> None:
    status, message = server.infer("small", torch.zeros(2, 15))
    assert (status, message) == (400, "the input 'features' has shape [2, 15]; allowed is [0 or more, 16].")


def test_no_request_is_lost_when_replicas_die(server: _Server) -> None:
    half, whole = threading.Event(), 400
    answered = 0
    lock = threading.Lock()

    def ask(number: int) -> None:
        nonlocal answered
        model = "small" if number % 2 else "large"
        features = torch.full((1 + number % 4, 16), number / whole)
        status, scores = server.infer(model, features)
        assert status == 200, scores
        torch.testing.assert_close(scores, server.models[model](features)["scores"].detach())
        with lock:
            answered += 1
            if answered >= whole // 4:
                half.set()

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(whole)]
        assert half.wait(240)
        server.kill_a_replica()
        for each in asked:
            each.result(240)
    assert answered == whole


def test_a_client_that_hangs_up_disturbs_no_other(server: _Server) -> None:
    entry = {"name": "features", "datatype": "FP32", "shape": [1, 16], "data": [0.0] * 16}
    body = json.dumps({"inputs": [entry]}).encode()
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", server.http)) as gone:
            head = f"POST /v2/models/small/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            gone.sendall(head.encode() + body[: len(body) // 2])
    status, _ = server.infer("small", torch.zeros(3, 16))
    assert status == 200


def test_settings_are_checked_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not there"):
        deployment(tmp_path / "missing.pt2")
    (tmp_path / "there.pt2").touch()
    with pytest.raises(trt_rt.SettingError, match="max_batch_size is 0"):
        deployment(tmp_path / "there.pt2", max_batch_size=0)
    with pytest.raises(trt_rt.SettingError, match="at least one file"):
        deployment({})


def test_the_commands_of_the_readme_answer_a_request(tmp_path: Path) -> None:
    """The example that saves model.pt2, then `trt-rt serve` and its request, with a port that is free."""
    readme = (_ROOT / "README.md").read_text()
    [saving] = [code for code in re.findall(r"```python\n(.*?)```", readme, re.S) if '"model.pt2"' in code]
    [shell] = [code for code in re.findall(r"```sh\n(.*?)```", readme, re.S) if "trt-rt serve" in code]
    command, request = shell.split("\n", 1)
    [content] = re.findall(r"-d '(.*?)'", request)
    [path] = re.findall(r"http://127.0.0.1:8000(\S+)", request)
    subprocess.run(
        [sys.executable, "-c", saving], cwd=tmp_path, env=_environment(tmp_path), check=True, timeout=240
    )
    [port] = free_ports(1)
    arguments = command.replace("8000", str(port)).split()[1:]
    command_line = [sys.executable, "-W", "ignore", "-m", "trt_rt.cli", *arguments]
    process = _started(command_line, "ready:", tmp_path, cwd=tmp_path)
    try:
        status, answer = _Server(port, 0, process, {}).post(path, content.encode())
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
        process.communicate()
    assert status == 200, answer
    assert answer["outputs"][0]["shape"] == [2, 8]
