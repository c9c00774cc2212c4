"""A Triton Inference Server for the tests: the one of the package nvidia-pytriton, run as it is.

The package holds the server, its Python backend, and the backend's process for each Python (the "stub"). It
asks for NumPy 1, so it is installed without its dependencies: ``pip install --no-deps nvidia-pytriton``.
Nothing of it is imported.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.integrations.ports import free_ports
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt.integrations.inference_protocol import JSON_LENGTH_HEADER, WireTensor

__all__ = ["TritonServer", "triton_server", "why_not"]

_ROOT = Path(__file__).parents[2]
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def why_not() -> str | None:
    """The reason why there is no server here, or None."""
    package = _package()
    if package is None:
        return "nvidia-pytriton is not installed (pip install --no-deps nvidia-pytriton)"
    stub = _stub(package)
    if not stub.exists():
        return f"nvidia-pytriton has no Python backend for Python {_PYTHON}"
    # Without arguments it ends at once. The system's loader ends it with 127 if a library is missing.
    tried = subprocess.run([stub], env=_environment(package), capture_output=True, text=True)
    if tried.returncode == 127:
        return f"Triton's Python backend does not start here: {tried.stderr.strip()}"
    return None


def _package() -> Path | None:
    found = importlib.util.find_spec("pytriton")
    return Path(found.origin).parent if found is not None and found.origin is not None else None


def _stub(package: Path) -> Path:
    return package / "tritonserver" / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"


def _environment(package: Path) -> dict[str, str]:
    libraries = [package.parent / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    return os.environ | {
        # The backend's Python has the packages of the first "python3" in PATH.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "OMP_NUM_THREADS": "1",
    }


@dataclass
class TritonServer:
    """A running server that loads a model when it is told to."""

    http: int
    grpc: int
    log: Path

    def call(self, path: str, body: Any = None, method: str = "POST") -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=SECONDS_UNTIL_DEADLOCK)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        return self.call(path, method="GET")

    def load(self, model: str) -> tuple[int, Any]:
        return self.call(f"/v2/repository/models/{model}/load", {})

    def unload(self, model: str) -> tuple[int, Any]:
        return self.call(f"/v2/repository/models/{model}/unload", {})

    def infer(self, model: str, **inputs: torch.Tensor) -> tuple[int, Any]:
        """The status, and each output by name or the server's message. Tensors travel as bytes."""
        tensors = {name: WireTensor.of(tensor) for name, tensor in inputs.items()}
        head = {
            "inputs": [
                {"name": name, "datatype": each.datatype, "shape": each.shape}
                | {"parameters": {"binary_data_size": len(each.data)}}
                for name, each in tensors.items()
            ],
            "parameters": {"binary_data_output": True},
        }
        text = json.dumps(head).encode()
        body = b"".join([text, *(each.data for each in tensors.values())])
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=SECONDS_UNTIL_DEADLOCK)
        try:
            connection.request(
                "POST", f"/v2/models/{model}/infer", body, {JSON_LENGTH_HEADER: str(len(text))}
            )
            answer = connection.getresponse()
            found = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            return answer.status, json.loads(found)["error"]
        start = int(answer.headers[JSON_LENGTH_HEADER])
        outputs = {}
        for each in json.loads(found[:start])["outputs"]:
            end = start + each["parameters"]["binary_data_size"]
            outputs[each["name"]] = WireTensor(each["datatype"], each["shape"], found[start:end]).tensor()
            start = end
        return 200, outputs


@contextmanager
def triton_server(repository: Path, folder: Path) -> Iterator[TritonServer]:
    """Run a server of a model repository; `folder` is for its log and its backend."""
    package = _package()
    assert package is not None
    backend = folder / "backends" / "python"
    shutil.copytree(package / "tritonserver" / "backends" / "python", backend)
    shutil.copy(_stub(package), backend)
    ports = free_ports(2)
    log = folder / "log"
    command = [package / "tritonserver" / "bin" / "tritonserver", f"--model-repository={repository}"]
    command += [f"--backend-directory={backend.parent}", "--model-control-mode=explicit"]
    command += [f"--http-port={ports[0]}", f"--grpc-port={ports[1]}", "--allow-metrics=false"]
    command += ["--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]
    command += [f"--backend-config=python,stub-timeout-seconds={SECONDS_UNTIL_DEADLOCK}"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(package),
            cwd=_ROOT,  # where the backend's Python finds trt_rt
            start_new_session=True,
        )
    server = TritonServer(*ports, log)
    try:
        _wait_until_ready(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(SECONDS_UNTIL_DEADLOCK)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_until_ready(server: TritonServer, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS_UNTIL_DEADLOCK
    while True:
        try:
            if server.get("/v2/health/ready")[0] == 200:
                return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the server does not answer:\n{server.log.read_text()}")
        time.sleep(0.05)
