"""The front: takes requests over HTTP and gRPC, checks them, and gives them to replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from ray.serve.handle import DeploymentHandle
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from trt_rt import __version__
from trt_rt.integrations.inference_protocol import (
    JSON_LENGTH_HEADER,
    RequestError,
    WireTensor,
    check_outputs,
    checked_tensor,
    read_request,
    tensor_of_numbers,
    write_response,
)
from trt_rt.integrations.ray_serve.dispatcher import Dispatcher
from trt_rt.integrations.ray_serve.gate import Gate
from trt_rt.integrations.ray_serve.grpc_messages import service_pb2
from trt_rt.integrations.ray_serve.model import Answer
from trt_rt.integrations.ray_serve.server_metrics import RequestMetrics
from trt_rt.integrations.ray_serve.settings import ServingSettings

__all__ = ["Front"]

_CONTENT_TYPES = ("application/json", "application/octet-stream")
_SERVER: dict[str, Any] = {"name": "trt_rt", "version": __version__, "extensions": ["binary_tensor_data"]}
_GRPC_CONTENTS = {
    "BOOL": "bool_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "INT8": "int_contents",
    "UINT8": "uint_contents",
}


class Front:
    """The deployment that clients talk to; it speaks the Open Inference Protocol.

    A request whose replica dies is given to another one: running a program changes nothing but its result, so
    it may run again.
    """

    def __init__(
        self, replicas: DeploymentHandle, models: Sequence[str], settings: ServingSettings, slots: int
    ) -> None:
        """Start without knowing more of the models than their names: replicas may not be ready yet.

        Parameters
        ----------
        replicas : DeploymentHandle
            Of `Replica`.
        models : sequence of str
            The names of the models.
        settings : ServingSettings
            For every model.
        slots : int
            Batches of each model that this front has at the replicas at once.
        """
        self._dispatcher = Dispatcher(replicas, settings, slots)
        self._metrics = {model: RequestMetrics(model) for model in models}
        self._most_bytes = settings.max_body_bytes
        self._gate = Gate()

    async def __call__(self, request: Request) -> Response:
        """Answer a request over HTTP."""
        try:
            return await self._route(request)
        except RequestError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except ClientDisconnect:
            return Response(status_code=499)

    async def drain(self) -> None:
        """Refuse new requests, and return when those that are here have their answers."""
        await self._gate.close()

    async def _route(self, request: Request) -> Response:
        path = [part for part in request.url.path.split("/") if part]
        match request.method, path:
            case "GET", ["v2", "health", "live"]:
                return Response()
            case "GET", ["v2", "health", "ready"]:
                self._gate.check_open()
                await self._dispatcher.check_ready()
                return Response()
            case "GET", ["v2"]:
                return JSONResponse(_SERVER)
            case "GET", ["v2", "models", model]:
                return JSONResponse({"name": model, "platform": "trt_rt"} | await self._tensors(model))
            case "GET", ["v2", "models", model, "ready"]:
                await self._tensors(model)
                return Response()
            case "POST", ["v2", "models", model, "infer"]:
                with self._known(model).request(), self._gate.request():
                    return await self._infer_http(model, request)
        raise RequestError(404, f"{request.method} {request.url.path} is nothing that this server does.")

    async def _infer_http(self, model: str, request: Request) -> Response:
        content_type = (
            request.headers.get("content-type", _CONTENT_TYPES[0]).partition(";")[0].strip().lower()
        )
        if content_type not in _CONTENT_TYPES:
            raise RequestError(
                415, f"the content type {content_type!r} is not one of {', '.join(_CONTENT_TYPES)}."
            )
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise RequestError(
                415, f"the content encoding {encoding!r} is not known: send the body as it is."
            )
        asked = read_request(await self._body(request), request.headers.get(JSON_LENGTH_HEADER))
        answer = await self._infer(model, asked.inputs)
        body, headers = write_response(asked, model, answer.outputs)
        return Response(body, headers=headers)

    async def _body(self, request: Request) -> bytes:
        """Read the body, and stop as soon as it is too large."""
        limit = self._most_bytes
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise RequestError(413, f"the body has more than {limit} bytes.")
            parts.append(part)
        return b"".join(parts)

    async def _infer(self, model: str, inputs: Mapping[str, WireTensor]) -> Answer:
        answer = await self._dispatcher.infer(model, inputs)
        if answer.status != 200:
            raise RequestError(answer.status, answer.message)
        return answer

    async def _tensors(self, model: str) -> dict[str, Any]:
        """Return the inputs and outputs of a model, if it is ready."""
        self._known(model)
        description = await self._dispatcher.describe(model)
        return {"inputs": description.inputs, "outputs": description.outputs}

    def _known(self, model: str) -> RequestMetrics:
        """Check that there is such a model, and return its metrics."""
        if model not in self._metrics:
            raise RequestError(
                404, f"there is no model {model!r}. The models are {', '.join(self._metrics)}."
            )
        return self._metrics[model]

    # gRPC: the methods of the protocol's service GRPCInferenceService, by their names there.

    async def ServerLive(self, request: Any) -> Any:
        """Say that the server runs."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any) -> Any:
        """Say whether a replica is ready."""
        try:
            self._gate.check_open()
            await self._dispatcher.check_ready()
        except RequestError:
            return service_pb2.ServerReadyResponse(ready=False)
        return service_pb2.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any) -> Any:
        """Describe the server."""
        return service_pb2.ServerMetadataResponse(**_SERVER)

    async def ModelReady(self, request: Any) -> Any:
        """Say whether a model works."""
        try:
            await self._tensors(request.name)
        except RequestError:
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: Any, grpc_context: Any) -> Any:
        """Describe a model."""
        try:
            found = await self._tensors(request.name)
        except RequestError as error:
            return _grpc_error(grpc_context, error, service_pb2.ModelMetadataResponse())
        return service_pb2.ModelMetadataResponse(name=request.name, platform="trt_rt", **found)

    async def ModelInfer(self, request: Any, grpc_context: Any) -> Any:
        """Run a model."""
        try:
            with self._known(request.model_name).request(), self._gate.request():
                return await self._infer_grpc(request)
        except RequestError as error:
            return _grpc_error(grpc_context, error, service_pb2.ModelInferResponse())

    async def _infer_grpc(self, request: Any) -> Any:
        if request.ByteSize() > self._most_bytes:
            raise RequestError(413, f"the message has more than {self._most_bytes} bytes.")
        answer = await self._infer(request.model_name, _grpc_inputs(request))
        wanted = [each.name for each in request.outputs] or list(answer.outputs)
        check_outputs(wanted, answer.outputs)
        response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        for name in wanted:
            tensor = answer.outputs[name]
            response.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
            response.raw_output_contents.append(tensor.data)
        return response


def _grpc_inputs(request: Any) -> dict[str, WireTensor]:
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise RequestError(400, f"the request has {len(request.inputs)} inputs and {len(raw)} raw contents.")
    inputs = {}
    for index, each in enumerate(request.inputs):
        if each.name in inputs:
            raise RequestError(400, f"the input {each.name!r} is given twice.")
        shape = list(each.shape)
        if raw:
            inputs[each.name] = checked_tensor(each.name, each.datatype, shape, raw[index])
            continue
        field = _GRPC_CONTENTS.get(each.datatype)
        if field is None:
            raise RequestError(400, f"the input {each.name!r} of {each.datatype} must come as raw contents.")
        numbers = list(getattr(each.contents, field))
        inputs[each.name] = tensor_of_numbers(each.name, each.datatype, shape, numbers)
    return inputs


def _grpc_error(context: Any, error: RequestError, empty: Any) -> Any:
    """Set the status of a call, in Ray Serve's way, and return an empty response."""
    codes = {
        400: grpc.StatusCode.INVALID_ARGUMENT,
        404: grpc.StatusCode.NOT_FOUND,
        413: grpc.StatusCode.RESOURCE_EXHAUSTED,
        503: grpc.StatusCode.UNAVAILABLE,
    }
    context.set_code(codes.get(error.status, grpc.StatusCode.INTERNAL))
    context.set_details(str(error))
    return empty
