"""A local Ray Serve with one program: its replicas' processes, and the batches that they report."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.integrations.processes import pids_below

_REPORT_MS = 200
_TITLE = "ray::ServeReplica:trt_rt:Replica"


class Server:
    """Ray, Ray Serve and the application, in processes of their own below this one."""

    def __init__(self, http_port: int, grpc_port: int, metrics_port: int, gpus: int) -> None:
        import ray

        self.ports = (http_port, grpc_port)
        self._metrics_port = metrics_port
        ray.init(
            address="local",  # not a cluster that runs on this machine already
            num_cpus=max(os.cpu_count() or 1, 8),
            num_gpus=gpus,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=300 * 2**20,
            _metrics_export_port=metrics_port,
            _system_config={"metrics_report_interval_ms": _REPORT_MS},
        )

    def deploy(self, program: Path, replicas: int, **settings: Any) -> None:
        """Start the application, or change it, and wait until it answers."""
        from trt_rt.integrations.ray_serve import deployment, run_server

        application = deployment({"model": program}, num_replicas=replicas, **settings)
        run_server(application, port=self.ports[0], grpc_port=self.ports[1])
        _wait_until(lambda: len(self.replicas()) == replicas, "the replicas run")

    def close(self) -> None:
        import ray
        from ray import serve

        serve.shutdown()
        ray.shutdown()

    def replicas(self) -> list[int]:
        """The process ids of the replicas, oldest first."""
        return sorted(pids_below(os.getpid(), _TITLE), key=lambda pid: os.stat(f"/proc/{pid}").st_ctime_ns)

    def pin(self) -> int:
        """Bind each replica to two cores of its own, for its program and the rest; return one of them."""
        cores = sorted(os.sched_getaffinity(0), reverse=True)
        for index, pid in enumerate(self.replicas()):
            own = {cores[2 * index], cores[2 * index + 1]}
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), own)
        return cores[0]

    def kill_a_replica(self) -> bool:
        """Send SIGKILL to the process of the oldest replica, if there is one."""
        victims = self.replicas()[:1]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        return bool(victims)

    def batches(self) -> int:
        """The number of batches up to now. Ray exports it with a delay, so this waits first."""
        time.sleep(5 * _REPORT_MS / 1e3)
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        counts = re.findall(r"^ray_trt_rt_batch_rows_count{[^}]*} (\S+)$", text, re.M)
        return round(sum(map(float, counts)))


def _wait_until(condition: Any, what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} seconds, in vain, until {what}")
        time.sleep(0.1)
