"""The front and the start and end of a server, without a server of Ray."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import trt_rt
from tests.integrations.ports import free_ports
from tests.isolated import printed_by
from trt_rt.integrations.inference_protocol import RequestError, WireTensor
from trt_rt.integrations.ray_serve import run_server, stop_server
from trt_rt.integrations.ray_serve.gate import Gate
from trt_rt.integrations.ray_serve.settings import ServingSettings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own imports


@pytest.fixture
def front() -> Any:
    from trt_rt.integrations.ray_serve.front import Front

    replicas: Any = None  # what is refused never gets there
    return Front(replicas, ["m"], ServingSettings(), 1)


def _post(front: Any, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    from starlette.requests import Request

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    names = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v2/models/m/infer",
        "query_string": b"",
        "headers": names,
    }
    response = asyncio.run(front(Request(scope, receive)))
    return response.status_code, json.loads(response.body)


def test_a_body_in_another_encoding_is_refused(front: Any) -> None:
    status, answer = _post(front, b"\x1f\x8b", content_encoding="gzip")
    assert status == 415
    assert answer["error"] == "the content encoding 'gzip' is not known: send the body as it is."


def test_an_input_that_grpc_gives_twice_is_refused(front: Any) -> None:
    from tritonclient.grpc import service_pb2

    entry = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1])
    one, two = struct.pack("f", 1), struct.pack("f", 2)
    request = service_pb2.ModelInferRequest(
        model_name="m", inputs=[entry, entry], raw_input_contents=[one, two]
    )
    told: list[str] = []
    context = types.SimpleNamespace(set_code=lambda code: told.append(code.name), set_details=told.append)
    asyncio.run(front.ModelInfer(request, context))
    assert told == ["INVALID_ARGUMENT", "the input 'x' is given twice."]


def test_grpc_has_the_methods_of_the_protocol_and_knows_no_others(front: Any) -> None:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    from trt_rt.integrations.ray_serve.grpc_messages import add_servicer

    server = grpc.server(ThreadPoolExecutor(1))
    missing = lambda request, context: None  # noqa: E731
    about = lambda request, context: asyncio.run(front.ServerMetadata(request))  # noqa: E731
    names = ("ModelInfer", "ModelMetadata", "ModelReady", "ServerLive", "ServerReady")
    add_servicer(types.SimpleNamespace(ServerMetadata=about, **dict.fromkeys(names, missing)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            found = stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=60)
            assert (found.name, found.version) == ("trt_rt", trt_rt.__version__)
            with pytest.raises(grpc.RpcError) as refused:
                stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name="m"), timeout=60)
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    finally:
        server.stop(None).wait()


def test_rows_without_elements_have_a_limit(tmp_path: Path) -> None:
    from trt_rt.integrations.ray_serve.model import Model

    class Sums(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2 + 1).relu().sum(1)

    sizes = {0: torch.export.Dim("batch", min=1, max=2), 1: torch.export.Dim("length", min=0, max=8)}
    program = trt_rt.compile(
        Sums(), inputs=[torch.ones(2, 4)], dynamic_shapes=(sizes,), backend="reference", cache_dir=None
    )
    trt_rt.save(program, tmp_path / "sums.pt2")
    model = Model("sums", str(tmp_path / "sums.pt2"), ServingSettings(), torch.device("cpu"))
    requests = [{"x": WireTensor("FP32", (rows, 0), b"")} for rows in (5, 2**31 - 1)]
    good, bad = asyncio.run(model.infer(requests))
    assert good.status == 200
    torch.testing.assert_close(good.outputs["output"].tensor(), torch.zeros(5))
    assert bad.status == 400
    assert "has 2147483647 rows, and may have 8192: the program runs 2 at a time" in bad.message


def test_a_gate_waits_for_those_inside_and_lets_nobody_in() -> None:
    async def use() -> list[str]:
        gate = Gate()
        told = []
        with gate.request():
            closing = asyncio.get_running_loop().create_task(gate.close())
            await asyncio.sleep(0)
            with pytest.raises(RequestError, match="is stopping"), gate.request():
                pass
            told.append(f"closed: {closing.done()}")
        await closing
        await gate.close()  # nobody is inside
        return told

    assert asyncio.run(asyncio.wait_for(use(), 60)) == ["closed: False"]


@pytest.mark.parametrize("which", ["http", "grpc", "metrics", "too large", "the same", "metrics too"])
def test_a_port_that_cannot_be_used_is_told_at_once(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", lambda **settings: pytest.fail("Ray was started"))
    [other] = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = taken.getsockname()[1]
        ports, message = {
            "http": ((used, None, None), f"cannot listen on 127.0.0.1, port {used}: Address already"),
            "grpc": ((other, used, None), f"cannot listen on 0.0.0.0, port {used}: Address already"),
            "metrics": (
                (other, None, used),
                f"cannot listen on 0.0.0.0, port {used}: Address already in use.",
            ),
            "too large": ((70000, None, None), "cannot listen on 127.0.0.1, port 70000: "),
            "the same": ((other, other, None), f"need a port each, and two of them have {other}."),
            "metrics too": ((other, None, other), f"need a port each, and two of them have {other}."),
        }[which]
        with pytest.raises(trt_rt.SettingError, match=re.escape(message)):
            run_server(object(), port=ports[0], grpc_port=ports[1], metrics_port=ports[2])


def test_a_host_that_is_no_name_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", lambda **settings: pytest.fail("Ray was started"))
    with pytest.raises(trt_rt.SettingError, match=r"cannot listen on a{70}, port 8000: "):
        run_server(object(), host="a" * 70)


_SERVER_THAT_IS_STOPPED_AT_EVERY_LINE = """
import signal
import sys
import threading

from trt_rt.cli import main
from trt_rt.integrations import ray_serve

def trace(frame, event, argument):
    if event == "line" and frame.f_code.co_filename.endswith(("cli/serve.py", "threading.py")):
        signal.raise_signal(signal.SIGTERM)
    return trace

def start(*arguments, **settings):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serving = sys._getframe(1)
    serving.f_trace = trace
    sys.settrace(trace)

def stop():
    sys.settrace(None)
    print("stopped")

ray_serve.deployment, ray_serve.run_server, ray_serve.stop_server = lambda *_, **__: None, start, stop
print(main(["serve", "model.pt2"]))
"""


def test_a_server_stops_wherever_the_signal_comes() -> None:
    assert printed_by(_SERVER_THAT_IS_STOPPED_AT_EVERY_LINE).splitlines()[-2:] == ["stopped", "0"]


@pytest.mark.parametrize("failure", ["", "a request takes too long", "a front has died"])
def test_a_server_that_stops_first_answers_what_it_has(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of Ray Serve: a record of what it is asked for."""
    import ray

    asked: list[str] = []

    def result(timeout_s: float) -> None:
        asked.append("drained")
        if failure:
            raise TimeoutError if "too long" in failure else ray.exceptions.ActorDiedError

    response = types.SimpleNamespace(result=result)
    handle = types.SimpleNamespace(drain=types.SimpleNamespace(remote=lambda: response))
    front = types.SimpleNamespace(replica_states={"RUNNING": 1})
    application = types.SimpleNamespace(deployments={"Front": front})
    status = types.SimpleNamespace(applications={"trt_rt": application})
    monkeypatch.setattr("ray.serve.status", lambda: status)
    monkeypatch.setattr("ray.serve.get_deployment_handle", lambda *args: handle)
    monkeypatch.setattr("ray.serve.delete", lambda name: asked.append(f"delete {name}"))
    monkeypatch.setattr("ray.serve.shutdown", lambda: asked.append("shutdown"))
    stop_server()
    assert asked == ["drained", "delete trt_rt", "shutdown"]
