"""Programs behind Ray Serve: replicas with dynamic batching, over HTTP and gRPC."""

from trt_rt.integrations.ray_serve.application import deployment, run_server, stop_server

__all__ = ["deployment", "run_server", "stop_server"]
