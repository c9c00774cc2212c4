"""``trt_rt.integrations.ray_serve.deployment``: saved programs as an application of Ray Serve."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from trt_rt.errors import SettingError, TRTError
from trt_rt.integrations.ray_serve.settings import ServingSettings

__all__ = ["deployment", "run_server", "stop_server"]

_NAME, _FRONTS, _REPLICAS = "trt_rt", "Front", "Replica"
_EVERY_ADDRESS = "0.0.0.0"
_SERVICER = "trt_rt.integrations.ray_serve.grpc_messages.add_servicer"
_MOST_CALLS = 1024
"""Of a replica at once: more than fronts make, because a router that finds a replica full waits a while."""
_DRAIN_LOOP_S = 0.5
"""How often a replica that is to stop looks for requests. It looks after this time first: routers must learn
that it stops. Ray Serve's own 2 seconds are also what a broken replica would be kept for."""
_RAY_ENVIRONMENT = {
    # Ray Serve ends a proxy that does not answer 5 seconds after its start, which a busy machine may need.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # Ray's processes run at niceness 15 otherwise, and get next to nothing beside any other busy process.
    "RAY_worker_niceness": "0",
}
"""For a Ray that is started here, unless the user has set them."""
_LONGEST_DRAIN_S = 20.0
_LOGGING = {"enable_access_log": False}  # a line for each request costs more than a small engine


def deployment(
    path: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    *,
    num_gpus: float | None = None,
    num_replicas: int | None = None,
    num_fronts: int = 1,
    batching: bool = True,
    max_batch_size: int | None = None,
    batch_wait_timeout_s: float = 0.002,
    max_ongoing_requests: int = 1024,
    max_queued_requests: int = -1,
    max_body_bytes: int = 64 * 2**20,
    max_retries: int = 3,
    health_check_period_s: float = 10.0,
    health_check_timeout_s: float = 30.0,
    graceful_shutdown_timeout_s: float = 20.0,
    public_key: bytes | None = None,
) -> Any:
    """Return an application of Ray Serve that answers requests with saved programs.

    Clients speak the Open Inference Protocol (KServe's version 2) to it, over HTTP and gRPC. Requests are
    joined into batches of the sizes that a program takes. A replica is ready after a warm-up at these sizes.
    Its health check runs the engines. A request whose replica dies is run by another one. A model that fails
    in every replica is answered with 503, and the other models go on.

    Parameters
    ----------
    path : path-like, or mapping of str to path-like
        What `trt_rt.save` wrote. A mapping gives each file a model id; a single file has its name without the
        suffix. Every replica holds all of the programs, and every machine of the cluster needs the files.
    num_gpus : float, optional
        For each replica; 0 runs on the CPU. Default: 1 if PyTorch sees a GPU here, else 0.
    num_replicas : int, optional
        Default: one for each GPU that PyTorch sees here, else one.
    num_fronts : int
        Processes that take requests apart and put responses together.
    batching : bool
        Whether requests may be joined, split and filled up. Turn it off for a model whose results for one row
        depend on the other rows.
    max_batch_size : int, optional
        The most rows that are joined. Default: the largest batch that a program takes.
    batch_wait_timeout_s : float
        How long a request may wait for others, in seconds.
    max_ongoing_requests : int
        Requests that a front holds at a time; more of them wait in Ray Serve's proxy.
    max_queued_requests : int
        Requests of a model that wait in a front for a batch; more of them are answered with 503. -1 for no
        limit.
    max_body_bytes : int
        Of an HTTP request; larger ones are answered with 413.
    max_retries : int
        How often a request is given to another replica when one dies.
    health_check_period_s, health_check_timeout_s : float
        How often the engines are run to see whether they work, and how long that may take, in seconds.
    graceful_shutdown_timeout_s : float
        How long a replica that is to stop may work on the requests that it has, in seconds.
    public_key : bytes, optional
        Refuse files that are not signed with this key, as `trt_rt.load`.

    Returns
    -------
    ray.serve.Application
        For ``serve.run``.

    Raises
    ------
    TRTError
        Ray Serve is not installed, or no file is named.
    SettingError
        A setting is out of range.
    OSError
        A file is not there.
    """
    settings = ServingSettings(
        batching,
        max_batch_size,
        batch_wait_timeout_s,
        max_queued_requests,
        max_body_bytes,
        max_retries,
        public_key,
    )
    models = _models(path)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if num_gpus is None:
        num_gpus = 1.0 if gpus else 0.0
    if num_replicas is None:
        num_replicas = max(gpus, 1) if num_gpus else 1
    if num_gpus < 0 or num_replicas < 1 or num_fronts < 1:
        raise SettingError("num_gpus must be at least 0, and num_replicas and num_fronts at least 1.")
    serve = _serve()
    from trt_rt.integrations.ray_serve.front import Front
    from trt_rt.integrations.ray_serve.model import OVERLAPPING_BATCHES
    from trt_rt.integrations.ray_serve.replica import Replica

    slots = -(-OVERLAPPING_BATCHES * num_replicas // num_fronts)
    replicas = serve.deployment(
        Replica,
        name=_REPLICAS,
        logging_config=_LOGGING,
        num_replicas=num_replicas,
        ray_actor_options={"num_gpus": num_gpus, "num_cpus": 0.5},
        max_ongoing_requests=_MOST_CALLS,
        health_check_period_s=health_check_period_s,
        health_check_timeout_s=health_check_timeout_s,
        graceful_shutdown_timeout_s=graceful_shutdown_timeout_s,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOP_S,
    ).bind(models, settings, on_gpu=num_gpus > 0)
    return serve.deployment(
        Front,
        name=_FRONTS,
        logging_config=_LOGGING,
        num_replicas=num_fronts,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=max_ongoing_requests,
        graceful_shutdown_timeout_s=graceful_shutdown_timeout_s,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOP_S,
    ).bind(replicas, tuple(models), settings, slots)


def run_server(
    application: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    grpc_port: int | None = None,
    metrics_port: int | None = None,
) -> None:
    """Start Ray Serve here, or in the cluster of ``RAY_ADDRESS``, and wait until the application is ready.

    A Ray that this starts has no dashboard, whose port would run code for whoever reaches it. Its processes
    have the priority of other programs, not Ray's lower one, unless ``RAY_worker_niceness`` says otherwise.

    Parameters
    ----------
    application : ray.serve.Application
        What `deployment` returned.
    host : str
        The address to listen on for HTTP; ``"0.0.0.0"`` for all. Ray Serve listens on all for gRPC.
    port, grpc_port : int
        For HTTP, and for gRPC; without `grpc_port` there is no gRPC.
    metrics_port : int, optional
        For Prometheus, on all addresses, if this starts Ray. Default: one that is free.

    Raises
    ------
    TRTError
        Ray did not start or answer, the application did not become ready, or one of its models does not
        work; the message has the reason.
    SettingError
        A port cannot be used.
    """
    serve = _serve()
    import ray

    grpc_options = (
        {"port": grpc_port, "grpc_servicer_functions": [_SERVICER]} if grpc_port is not None else None
    )
    if not ray.is_initialized() and "RAY_ADDRESS" not in os.environ:
        _check_ports([(host, port), (_EVERY_ADDRESS, grpc_port), (_EVERY_ADDRESS, metrics_port)])
    try:
        if not ray.is_initialized():
            for name, value in _RAY_ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            ray.init(namespace="serve", include_dashboard=False, _metrics_export_port=metrics_port)
        serve.start(http_options={"host": host, "port": port}, grpc_options=grpc_options)
        serve.run(application, name=_NAME, route_prefix="/")
        models = serve.get_deployment_handle(_REPLICAS, _NAME).describe.remote().result()
    except (RuntimeError, OSError, ray.exceptions.RayError) as error:
        raise TRTError(f"the server did not become ready: {error}") from error
    if failing := {name: found.failure for name, found in models.items() if found.failure is not None}:
        reasons = " ".join(f"The model {name!r} does not work: {why}" for name, why in failing.items())
        raise TRTError(f"the server did not become ready. {reasons}")


def stop_server() -> None:
    """Answer the requests that the server has, refuse new ones, and stop Ray Serve.

    Requests that take longer than 20 seconds lose their connections. A front that has died has no requests.

    Raises
    ------
    TRTError
        Ray Serve is not installed.
    """
    serve = _serve()
    import ray

    try:
        # While the replicas still take batches.
        fronts = serve.status().applications[_NAME].deployments[_FRONTS].replica_states.get("RUNNING", 0)
        handle = serve.get_deployment_handle(_FRONTS, _NAME)
        with suppress(TimeoutError, ray.exceptions.RayError):
            for draining in [handle.drain.remote() for _ in range(fronts)]:
                draining.result(timeout_s=_LONGEST_DRAIN_S)
        # Waits until the proxies have the answers. shutdown() ends them and their connections at once.
        serve.delete(_NAME)
    finally:
        serve.shutdown()


def _check_ports(addresses: Sequence[tuple[str, int | None]]) -> None:
    """Find out in time what Ray Serve tells after a while, in many lines."""
    seen = set()
    for address, number in addresses:
        if number is None:
            continue
        if number in seen:
            raise SettingError(f"HTTP, gRPC and metrics need a port each, and two of them have {number}.")
        seen.add(number)
        try:
            family = socket.getaddrinfo(address, number, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
                probe.bind((address, number))
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingError(f"cannot listen on {address}, port {number}: {reason}.") from error


def _models(path: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]) -> dict[str, str]:
    files = dict(path) if isinstance(path, Mapping) else {Path(path).stem: path}
    if not files:
        raise SettingError("a server needs at least one file.")
    for name, file in files.items():
        if not name or "/" in name:
            raise SettingError(f"{name!r} cannot be a model's name: it is a part of a URL.")
        if not Path(file).is_file():
            raise FileNotFoundError(errno.ENOENT, "this is not there, or is no file", str(file))
    return {name: str(Path(file).resolve()) for name, file in files.items()}


def _serve() -> Any:
    try:
        from ray import serve
    except ImportError as error:
        raise TRTError("serving needs Ray Serve: pip install 'trt_rt[serve]'") from error
    return serve
