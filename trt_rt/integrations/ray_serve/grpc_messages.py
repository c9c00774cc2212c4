"""The messages of the Open Inference Protocol over gRPC, which the package tritonclient has.

Ray Serve's proxy sends them to the front by pickle. They name `grpc_service_pb2` as their module, as they
were generated under that name. In tritonclient it has another one, so pickle would not find it.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

__all__ = ["add_servicer", "service_pb2"]

_SERVICE = "inference.GRPCInferenceService"
_METHODS = ("ModelInfer", "ModelMetadata", "ModelReady", "ServerLive", "ServerMetadata", "ServerReady")
"""Those of the protocol. Triton has added others to the service, which are answered with UNIMPLEMENTED."""

sys.modules.setdefault(service_pb2.ModelInferRequest.__module__, service_pb2)


def add_servicer(servicer: Any, server: Any) -> None:
    """Add the protocol's service to a server; Ray Serve calls this in its proxy."""
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name),
            request_deserializer=getattr(service_pb2, f"{name}Request").FromString,
            response_serializer=getattr(service_pb2, f"{name}Response").SerializeToString,
        )
        for name in _METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
