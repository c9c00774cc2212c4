"""A real Ray Serve on this machine: two programs over HTTP and gRPC, under load, with replicas that die."""

from __future__ import annotations

import builtins
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
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import trt_rt
from tests.integrations.ports import free_ports
from tests.integrations.processes import own_bytes, pids_below
from tests.integrations.ray_server import MOST_BYTES
from trt_rt.integrations.ray_serve import deployment, run_server

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


class _Curve(torch.nn.Module):
    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": features.tanh()}


class _Breakable(torch.nn.Module):
    """Has the operator that `BreakableReplica` can break."""

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": features.sinh()}


@dataclass
class _Server:
    http: int
    grpc: int
    process: subprocess.Popen[str]
    models: dict[str, torch.nn.Module]
    folder: Path

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
        status, answer = self.post(f"/v2/models/{model}/infer", _json_body(features))
        if status != 200:
            return status, answer["error"]
        [output] = answer["outputs"]
        return status, torch.tensor(output["data"]).reshape(output["shape"])

    def ask(self, line: str) -> str:
        """Send a line to the server's process, and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def ongoing(self) -> int:
        """Return how many requests the fronts and the replicas have."""
        return int(self.ask("ongoing"))

    def running(self) -> int:
        """Return how many replicas run."""
        return int(self.ask("running"))

    def pids(self, title: str) -> set[int]:
        return set(pids_below(self.process.pid, f"ray::{title}"))

    def replicas(self) -> set[int]:
        return self.pids("ServeReplica:trt_rt:Replica")

    def has_both_replicas(self) -> bool:
        """Return whether two replicas run, and no third one has yet to leave."""
        return self.running() == len(self.replicas()) == 2


def _wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} seconds in vain"
        time.sleep(0.2)


def _json_body(features: torch.Tensor) -> bytes:
    entry = {"name": "features", "datatype": "FP32", "shape": list(features.shape)}
    return json.dumps({"inputs": [entry | {"data": features.flatten().tolist()}]}).encode()


def _http_request(model: str, body: bytes) -> bytes:
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _environment(folder: Path) -> dict[str, str]:
    ours = {
        "PYTHONPATH": str(_ROOT),
        "TRT_RT_CACHE_DIR": str(folder / "cache"),
        "BREAKABLE_FOLDER": str(folder),
    }
    rays = {"AUTH_MODE": "disabled", "USAGE_STATS_ENABLED": "0", "prestart_worker_first_driver": "0"}
    rays |= {"SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60", "worker_niceness": "0"}
    return os.environ | ours | {f"RAY_{name}": value for name, value in rays.items()}


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
    models |= {"curve": _Curve().eval(), "breakable": _Breakable().eval()}
    for name, model in models.items():
        narrow, wide = (4, 32) if name == "curve" else (16, 16)
        features = trt_rt.Input(min_shape=(2, narrow), opt_shape=(4, 16), max_shape=(8, wide))
        trt_rt.save(trt_rt.compile(model, inputs=[features], backend="reference"), folder / f"{name}.pt2")
    ports = free_ports(2)
    command = [sys.executable, "-W", "ignore", "-m", "tests.integrations.ray_server", *map(str, ports)]
    command += [f"{name}={folder / name}.pt2" for name in models]
    process = _started(command, "ready", folder, cwd=_ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield _Server(*ports, process, models, folder)
    finally:
        for file in ("hold", "fail"):
            (folder / file).unlink(missing_ok=True)
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
    """And goes on after messages that are too large, which leave nothing in the server's memory."""
    processes = server.pids("ProxyActor") | server.pids("ServeReplica:trt_rt:Front")
    script = f"""
import re
import numpy as np, tritonclient.grpc as grpc
client = grpc.InferenceServerClient("127.0.0.1:{server.grpc}")
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("small")
assert not client.is_model_ready("missing")
assert [each.name for each in client.get_model_metadata("small").inputs] == ["features"]

def memory():
    statuses = [open(f"/proc/{{pid}}/status").read() for pid in {processes}]
    return sum(int(re.search(r"RssAnon:\\s+(\\d+) kB", status)[1]) for status in statuses) / 1024

def infer(model, *shape):
    tensor = grpc.InferInput("features", shape, "FP32")
    tensor.set_data_from_numpy(np.ones(shape, np.float32))
    try:
        return client.infer(model, [tensor]).as_numpy("scores").tolist()
    except Exception as error:
        return str(error)

print(infer("small", 3, 16))
print(infer("missing", 3, 16))
print(infer("curve", 3, 33))
for _ in range(10):
    print(infer("small", 2**15, 16))
before = memory()
for _ in range(60):
    infer("small", 2**15, 16)
print(memory() - before)
print(infer("small", 3, 16))
"""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    scores, missing, shape, *large, grown, again = found.stdout.splitlines()
    expected = server.models["small"](torch.ones(3, 16))["scores"].detach()
    for each in (scores, again):
        torch.testing.assert_close(torch.tensor(json.loads(each)), expected)
    assert "there is no model 'missing'" in missing
    assert "INVALID_ARGUMENT" in shape
    assert "'features' has shape [3, 33]; allowed is [0 or more, 4 to 32]" in shape
    assert all("RESOURCE_EXHAUSTED" in each and f"more than {MOST_BYTES} bytes" in each for each in large)
    assert float(grown) < 30  # MiB, of 120 that came


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("/v2/models/small/infer", b"{", {}, 400, "the body is not JSON"),
        ("/v2/models/small/infer", b"{}", {}, 400, "the input 'features' is missing"),
        ("/v2/models/none/infer", b"{}", {}, 404, "there is no model 'none'. The models are small, "),
        ("/v2/models/small/infer", b"{}", {"Content_Type": "text/html"}, 415, "'text/html' is not one of"),
        ("/v2/models/small/infer", b"{}", {"Content_Type": ""}, 415, "'' is not one of"),
        (
            "/v2/models/small/infer",
            b"{}",
            {"Inference_Header_Content_Length": "3"},
            400,
            "Inference-Header-Content-Length is '3', and the body has 2 bytes",
        ),
        ("/v2/models/small/infer", b"{}", {"Inference_Header_Content_Length": "-1"}, 400, "is '-1'"),
        ("/v2/models/small/infer", b"{}", {"Inference_Header_Content_Length": "1"}, 400, "is not JSON"),
        ("/v2/models/small/infer", b"x" * (MOST_BYTES + 1), {}, 413, f"more than {MOST_BYTES} bytes"),
        ("/v2/models/small", b"{}", {}, 404, "is nothing that this server does"),
    ],
)
def test_a_bad_request_gets_a_status_and_a_sentence(
    server: _Server, path: str, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    found, answer = server.post(path, body, **headers)
    assert found == status
    assert message in answer["error"]


@pytest.mark.parametrize("connections", ["one", "one each"])
def test_bodies_that_are_too_large_leave_nothing_behind(server: _Server, connections: str) -> None:
    body = b"x" * (2 * 2**20)
    features = torch.randn(3, 16)
    client = http.client.HTTPConnection("127.0.0.1", server.http, timeout=120)

    def post(body: bytes) -> tuple[int, dict[str, Any]]:
        client.request("POST", "/v2/models/small/infer", body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        found = answer.status, json.loads(answer.read())
        if connections == "one each":
            client.close()
        return found

    def memory() -> int:
        return sum(map(own_bytes, server.pids("ProxyActor") | server.pids("ServeReplica:trt_rt:Front")))

    try:
        for _ in range(10):
            assert post(body)[0] == 413
        before = memory()
        for _ in range(60):
            assert post(body)[0] == 413
        assert memory() < before + 15 * len(body)
        status, answer = post(_json_body(features))
    finally:
        client.close()
    assert status == 200, answer
    expected = server.models["small"](features)["scores"].detach()
    torch.testing.assert_close(torch.tensor(answer["outputs"][0]["data"]), expected.flatten())


@pytest.mark.parametrize(
    ("model", "shape", "allowed"),
    [
        ("small", (2, 15), "0 or more, 16"),
        ("curve", (2, 33), "0 or more, 4 to 32"),
        ("curve", (2, 3), "0 or more, 4 to 32"),
        ("curve", (16,), "0 or more, 4 to 32"),
        ("curve", (2, 16, 1), "0 or more, 4 to 32"),
        ("curve", (), "0 or more, 4 to 32"),
    ],
)
def test_a_shape_outside_of_the_profile_is_refused_and_says_what_is_allowed(
    server: _Server, model: str, shape: tuple[int, ...], allowed: str
) -> None:
    found = server.infer(model, torch.zeros(shape))
    assert found == (400, f"the input 'features' has shape {list(shape)}; allowed is [{allowed}].")


def test_bad_requests_do_not_spoil_the_batch_that_they_are_in(server: _Server) -> None:
    """While the replicas are held, requests gather to batches."""
    hold = server.folder / "hold"
    hold.touch()
    good, bad = torch.randn(1, 16), torch.zeros(1, 15)
    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(server.infer, "breakable", bad if n % 3 == 0 else good) for n in range(24)]
        _wait_until(lambda: server.ongoing() >= 24)
        hold.unlink()
        answers = [each.result(120) for each in asked]
    for number, (status, answer) in enumerate(answers):
        if number % 3 == 0:
            assert (status, "has shape [1, 15]; allowed is [0 or more, 16]" in answer) == (400, True)
        else:
            assert status == 200, answer
            torch.testing.assert_close(answer, good.sinh())


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
        assert server.ask("kill") == "killed"
        for each in asked:
            each.result(240)
    assert answered == whole


def test_clients_that_hang_up_within_their_bodies_leave_nothing_behind(server: _Server) -> None:
    request = _http_request("small", _json_body(torch.zeros(1, 16)))
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", server.http)) as gone:
            gone.sendall(request[:-20])
    features = torch.randn(3, 16)
    status, scores = server.infer("small", features)
    assert status == 200, scores
    torch.testing.assert_close(scores, server.models["small"](features)["scores"].detach())
    _wait_until(lambda: server.ongoing() == 0)


def test_clients_that_hang_up_before_their_answers_disturb_no_others(server: _Server) -> None:
    """Those in the same batches, and those that wait for a batch."""
    hold = server.folder / "hold"
    hold.touch()
    features = torch.randn(1, 16)
    with ThreadPoolExecutor(12) as pool:
        gone = [socket.create_connection(("127.0.0.1", server.http)) for _ in range(12)]
        asked = []
        for connection in gone:
            connection.sendall(_http_request("breakable", _json_body(features)))
            asked.append(pool.submit(server.infer, "breakable", features))
        _wait_until(lambda: server.ongoing() >= 24)
        for connection in gone:
            connection.close()
        # Those that stay, and at most two batches of four rows at each replica.
        _wait_until(lambda: server.ongoing() <= 12 + 4)
        hold.unlink()
        for each in asked:
            status, scores = each.result(120)
            assert status == 200, scores
            torch.testing.assert_close(scores, features.sinh())
    _wait_until(lambda: server.ongoing() == 0)


def test_a_replica_whose_model_fails_is_replaced_while_the_other_one_answers(server: _Server) -> None:
    _wait_until(server.has_both_replicas)
    before = server.replicas()
    broken = min(before)
    features = torch.randn(2, 16)
    (server.folder / str(broken)).touch()

    def is_replaced() -> bool:
        assert server.infer("small", features)[0] == 200
        status, scores = server.infer("breakable", features)
        # Its health check may have taken the broken replica out before a request came to it.
        if status == 200:
            torch.testing.assert_close(scores, features.sinh())
        else:
            assert status == 500
            assert "sinh is broken" in scores
        return broken not in server.replicas() and server.has_both_replicas()

    _wait_until(is_replaced, 120)
    assert before - server.replicas() == {broken}
    status, scores = server.infer("breakable", features)
    assert status == 200, scores
    torch.testing.assert_close(scores, features.sinh())


def test_a_model_that_fails_in_every_replica_does_not_stop_the_other_models(server: _Server) -> None:
    """A request that a replica has when its model begins to fail gets the error; later ones are refused."""
    _wait_until(server.has_both_replicas)
    before = server.replicas()
    features = torch.randn(2, 16)
    hold, fail = server.folder / "hold", server.folder / "fail"
    hold.touch()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.infer, "breakable", features)
        _wait_until(lambda: server.ongoing() >= 2)  # at the front, and at a replica
        fail.touch()
        hold.unlink()
        status, message = asked.result(120)
    assert status == 500, message
    assert "sinh is broken" in message

    def others_answer() -> None:
        for model in ("small", "large"):
            status, scores = server.infer(model, features)
            assert status == 200, scores
            torch.testing.assert_close(scores, server.models[model](features)["scores"].detach())

    def is_refused() -> bool:
        others_answer()
        status, message = server.infer("breakable", features)
        assert "sinh is broken" in message
        return status == 503

    def works_again() -> bool:
        others_answer()
        return server.infer("breakable", features)[0] == 200

    _wait_until(lambda: is_refused() and not before & server.replicas(), 120)
    fail.unlink()
    _wait_until(works_again, 120)


def test_settings_are_checked_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not there"):
        deployment(tmp_path / "missing.pt2")
    (tmp_path / "there.pt2").touch()
    with pytest.raises(trt_rt.SettingError, match="max_batch_size is 0"):
        deployment(tmp_path / "there.pt2", max_batch_size=0)
    with pytest.raises(trt_rt.SettingError, match="at least one file"):
        deployment({})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own imports
def test_a_server_is_not_started_if_one_of_its_models_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of Ray Serve: replicas that have started without a model, as after the failure of all."""
    from trt_rt.integrations.ray_serve.model import ModelDescription

    found = {"good": ModelDescription(), "bad": ModelDescription(failure="its file is damaged.")}
    response = types.SimpleNamespace(result=lambda: found)
    handle = types.SimpleNamespace(describe=types.SimpleNamespace(remote=lambda: response))
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    for name in ("start", "run"):
        monkeypatch.setattr(f"ray.serve.{name}", lambda *args, **kwargs: None)
    monkeypatch.setattr("ray.serve.get_deployment_handle", lambda *args: handle)
    message = "the server did not become ready. The model 'bad' does not work: its file is damaged."
    with pytest.raises(trt_rt.TRTError, match=re.escape(message)):
        run_server(object())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own imports
@pytest.mark.parametrize("starts_ray", [False, True])
@pytest.mark.parametrize("error", ["ActorDiedError", "RuntimeError", "TimeoutError"])
def test_an_error_of_ray_at_the_start_becomes_ours(
    monkeypatch: pytest.MonkeyPatch, error: str, *, starts_ray: bool
) -> None:
    """Ray's own errors, and those of Python that it raises when a cluster or a proxy does not answer."""
    import ray

    raised = ray.exceptions.ActorDiedError() if error == "ActorDiedError" else getattr(builtins, error)("why")

    def start(**_: object) -> None:
        raise raised

    monkeypatch.setattr("ray.is_initialized", lambda: not starts_ray)
    monkeypatch.setattr("ray.init" if starts_ray else "ray.serve.start", start)
    with pytest.raises(trt_rt.TRTError, match=re.escape(f"the server did not become ready: {raised}")):
        run_server(object(), port=free_ports(1)[0])


def test_the_commands_of_the_readme_answer_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example that saves model.pt2, then `trt-rt serve` and its request, with a port that is free."""
    readme = (_ROOT / "README.md").read_text()
    [saving] = [code for code in re.findall(r"```python\n(.*?)```", readme, re.S) if '"model.pt2"' in code]
    [shell] = [code for code in re.findall(r"```sh\n(.*?)```", readme, re.S) if "trt-rt serve" in code]
    command, request = shell.split("\n", 1)
    [content] = re.findall(r"-d '(.*?)'", request)
    [path] = re.findall(r"http://127.0.0.1:8000(\S+)", request)
    # Without one, curl -d sends the type of a form.
    [content_type] = re.findall(r"-H 'Content-Type: (.*?)'", request)
    monkeypatch.chdir(tmp_path)
    exec(saving, {})  # in this process, which has imported PyTorch already
    [port] = free_ports(1)
    arguments = command.replace("8000", str(port)).split()[1:]
    command_line = [sys.executable, "-W", "ignore", "-m", "trt_rt.cli", *arguments]
    process = _started(command_line, "ready:", tmp_path, cwd=tmp_path)
    try:
        status, answer = _Server(port, 0, process, {}, tmp_path).post(
            path, content.encode(), Content_Type=content_type
        )
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        process.communicate()
    assert status == 200, answer
    assert answer["outputs"][0]["shape"] == [2, 8]
