"""A server for the tests, in a process of its own: python ray_server.py HTTP-PORT GRPC-PORT NAME=FILE...

It prints "ready" when it answers. A line on standard input asks it for something, and the end of standard
input ends it:

- "kill" ends one replica's process, as a crash would;
- "ongoing" prints how many requests the fronts and the replicas have;
- "running" prints how many replicas run, after their warm-up and in good health.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

MOST_BYTES = 100_000


def main() -> None:
    http, grpc, *models = sys.argv[1:]
    import ray
    from ray import serve

    from tests.integrations.breakable_replica import BreakableReplica
    from trt_rt.integrations.ray_serve import deployment, replica, run_server

    replica.Replica = BreakableReplica  # type: ignore[misc]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    files = dict(text.split("=", 1) for text in models)
    application = deployment(
        files, num_gpus=0, num_replicas=2, max_body_bytes=MOST_BYTES, health_check_period_s=1
    )
    run_server(application, port=int(http), grpc_port=int(grpc))
    print("ready", flush=True)
    for line in sys.stdin:
        match line.strip():
            case "kill":
                ray.kill(next(_actors("Replica")))
                print("killed", flush=True)
            case "ongoing":
                print(sum(map(_ongoing, [*_actors("Front"), *_actors("Replica")])), flush=True)
            case "running":
                states = serve.status().applications["trt_rt"].deployments["Replica"].replica_states
                print(states.get("RUNNING", 0), flush=True)
    ray.shutdown()  # at once: the tests of the command line have the graceful way


def _actors(deployment: str) -> Iterator[Any]:
    import ray

    actors = ray.util.list_named_actors(all_namespaces=True)
    for name in sorted(each["name"] for each in actors if f"#{deployment}#" in each["name"]):
        with suppress(ValueError):  # it has died since
            yield ray.get_actor(name, namespace="serve")


def _ongoing(actor: Any) -> int:
    import ray

    try:
        count: int = ray.get(actor.get_num_ongoing_requests.remote())
    except ray.exceptions.RayActorError:  # it has died since
        return 0
    return count


if __name__ == "__main__":
    main()
