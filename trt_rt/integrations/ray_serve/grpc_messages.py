"""The messages of the Open Inference Protocol over gRPC, which the package tritonclient has.

Ray Serve's proxy sends them to the front by pickle. They name `grpc_service_pb2` as their module, as they
were generated under that name. In tritonclient it has another one, so pickle would not find it.
"""

from __future__ import annotations

import sys
from typing import Any

from tritonclient.grpc import service_pb2, service_pb2_grpc

__all__ = ["add_servicer", "service_pb2"]

sys.modules.setdefault(service_pb2.ModelInferRequest.__module__, service_pb2)


def add_servicer(servicer: Any, server: Any) -> None:
    """Add the protocol's service to a server; Ray Serve calls this in its proxy."""
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
