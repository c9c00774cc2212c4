"""A load generator, in a process of its own: python load.py SAMPLES HTTP-PORT GRPC-PORT MODEL.

Each line of standard input is a command in JSON: `{"protocol": "http", "clients": 4, "seconds": 2,
"warm_up": 1}`, or "requests" instead of "seconds". Clients send one request after the other. Each answer
is compared with the outputs in SAMPLES, and must have the identifier of its request. A command's result is a
line of JSON. If the number of requests is given, a line "progress N" comes after every hundred of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc
import numpy
import uvloop
from hdrh.histogram import HdrHistogram
from tritonclient.grpc import service_pb2, service_pb2_grpc

LOWEST, HIGHEST, DIGITS = 1, 600_000_000, 3
"""Microseconds, for the histograms of latencies."""
_NUMPY = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "INT32": "int32", "INT64": "int64"}
_LENGTH = "Inference-Header-Content-Length"
_TOLERANCE = 1e-3
_KEPT_ERRORS = 5


@dataclass(frozen=True)
class Sample:
    """The inputs of a request and the outputs that it must get."""

    inputs: dict[str, numpy.ndarray]
    outputs: dict[str, numpy.ndarray]
    datatypes: dict[str, str]

    def http(self, identifier: str) -> tuple[bytes, dict[str, str]]:
        inputs = [
            {
                "name": name,
                "datatype": self.datatypes[name],
                "shape": list(array.shape),
                "parameters": {"binary_data_size": array.nbytes},
            }
            for name, array in self.inputs.items()
        ]
        content = {"id": identifier, "parameters": {"binary_data_output": True}, "inputs": inputs}
        text = json.dumps(content).encode()
        body = b"".join([text, *(array.tobytes() for array in self.inputs.values())])
        return body, {"Content-Type": "application/octet-stream", _LENGTH: str(len(text))}

    def grpc(self, model: str, identifier: str) -> Any:
        request = service_pb2.ModelInferRequest(model_name=model, id=identifier)
        for name, array in self.inputs.items():
            request.inputs.add(name=name, datatype=self.datatypes[name], shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        return request

    def is_answer(self, name: str, shape: list[int], data: bytes) -> bool:
        expected = self.outputs[name]
        if list(shape) != list(expected.shape) or len(data) != expected.nbytes:
            return False
        found = numpy.frombuffer(data, expected.dtype).reshape(expected.shape)
        return bool(numpy.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE))


@dataclass
class Counts:
    """What became of the requests of one command."""

    right: int = 0
    wrong: int = 0
    repeated: int = 0
    lost: int = 0
    errors: list[str] = field(default_factory=list)
    histogram: HdrHistogram = field(default_factory=lambda: HdrHistogram(LOWEST, HIGHEST, DIGITS))
    longest_us: int = 0

    def answered(self, *, right: bool, own: bool, microseconds: int) -> None:
        self.right += right and own
        self.wrong += own and not right
        self.repeated += not own
        self.longest_us = max(self.longest_us, microseconds)
        self.histogram.record_value(min(max(microseconds, LOWEST), HIGHEST))

    def failed(self, why: str) -> None:
        self.lost += 1
        if len(self.errors) < _KEPT_ERRORS:
            self.errors.append(why)

    def as_json(self, seconds: float, asked: int) -> dict[str, Any]:
        return {
            "seconds": seconds,
            "asked": asked,
            "right": self.right,
            "wrong": self.wrong,
            "repeated": self.repeated,
            "lost": self.lost,
            "errors": self.errors,
            "longest_us": self.longest_us,
            "histogram": self.histogram.encode().decode(),
        }


Ask = Callable[[int], Awaitable[tuple[bool, bool]]]
"""Sends the request of a number; returns whether the values are right, and whether the answer is its own."""


class Client:
    """Sends requests over both protocols."""

    def __init__(self, samples: list[Sample], http_port: int, grpc_port: int, model: str) -> None:
        self._samples = samples
        self._url = f"http://127.0.0.1:{http_port}/v2/models/{model}/infer"
        self._model = model
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120)
        )
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}")
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        await self._session.close()
        await self._channel.close()

    def _sample(self, number: int) -> Sample:
        return self._samples[number % len(self._samples)]

    async def http(self, number: int) -> tuple[bool, bool]:
        sample, identifier = self._sample(number), f"{number:09d}"
        body, headers = sample.http(identifier)
        async with self._session.post(self._url, data=body, headers=headers) as response:
            answer = await response.read()
            if response.status != 200:
                raise RuntimeError(f"status {response.status}: {answer[:300]!r}")
            end = int(response.headers[_LENGTH])
        content = json.loads(answer[:end])
        right = len(content["outputs"]) == len(sample.outputs)
        for output in content["outputs"]:
            size = output["parameters"]["binary_data_size"]
            right &= sample.is_answer(output["name"], output["shape"], answer[end : end + size])
            end += size
        return right and end == len(answer), content.get("id") == identifier

    async def grpc(self, number: int) -> tuple[bool, bool]:
        sample, identifier = self._sample(number), f"{number:09d}"
        answer = await self._stub.ModelInfer(sample.grpc(self._model, identifier), timeout=120)
        right = len(answer.outputs) == len(sample.outputs)
        for output, data in zip(answer.outputs, answer.raw_output_contents, strict=True):
            right &= sample.is_answer(output.name, list(output.shape), data)
        return right, answer.id == identifier


async def drive(ask: Ask, command: dict[str, Any]) -> dict[str, Any]:
    """Let clients send requests, for some time after a warm-up, or a number of them."""
    warm_up = command.get("warm_up", 0.0)
    requests = command.get("requests")
    began = time.perf_counter()
    start = began + warm_up
    end = start + command["seconds"] if requests is None else None
    warming, counts = Counts(), Counts()
    number = command.get("first", 0)
    done = 0

    async def client() -> None:
        nonlocal number, done
        while True:
            now = time.perf_counter()
            if (end is not None and now >= end) or (requests is not None and number >= requests):
                return
            mine, number = number, number + 1
            try:
                right, own = await ask(mine)
            except (aiohttp.ClientError, grpc.RpcError, RuntimeError, OSError, asyncio.TimeoutError) as error:
                (counts if now >= start else warming).failed(f"{type(error).__name__}: {error}"[:500])
            else:
                finished = time.perf_counter()
                # An answer belongs to the time in which it comes.
                kept = counts if finished >= start and (end is None or finished <= end) else warming
                kept.answered(right=right, own=own, microseconds=round((finished - now) * 1e6))
            done += 1
            if requests is not None and done % 100 == 0:
                print(f"progress {done}", flush=True)

    await asyncio.gather(*(client() for _ in range(command["clients"])))
    counts.wrong += warming.wrong
    counts.repeated += warming.repeated
    counts.lost += warming.lost
    counts.errors += warming.errors
    return counts.as_json((time.perf_counter() if end is None else end) - start, done)


def read_samples(file: str) -> list[Sample]:
    with numpy.load(file) as stored:
        datatypes = json.loads(str(stored["datatypes"]))
        samples: dict[int, Sample] = {}
        for key in stored.files:
            if key == "datatypes":
                continue
            kind, number, name = key.split(" ", 2)
            sample = samples.setdefault(int(number), Sample({}, {}, {}))
            (sample.inputs if kind == "input" else sample.outputs)[name] = stored[key]
            sample.datatypes[name] = datatypes[f"{kind} {name}"]
    return [samples[number] for number in sorted(samples)]


async def main() -> None:
    samples_file, http_port, grpc_port, model = sys.argv[1:]
    client = Client(read_samples(samples_file), int(http_port), int(grpc_port), model)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        ask = client.http if command["protocol"] == "http" else client.grpc
        print(json.dumps(await drive(ask, command)), flush=True)
    await client.close()


if __name__ == "__main__":
    uvloop.run(main())
