"""A server for the tests, in a process of its own: python ray_server.py HTTP-PORT GRPC-PORT NAME=FILE...

It prints "ready" when it answers. A line "kill" on standard input ends one replica's process, as a crash
would, and the end of standard input ends the server.
"""

from __future__ import annotations

import sys


def main() -> None:
    http, grpc, *models = sys.argv[1:]
    import ray
    from ray import serve

    from trt_rt.integrations.ray_serve import deployment, run_server

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    files = dict(text.split("=", 1) for text in models)
    application = deployment(
        files, num_gpus=0, num_replicas=2, max_body_bytes=100_000, health_check_period_s=1
    )
    run_server(application, port=int(http), grpc_port=int(grpc))
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            actors = ray.util.list_named_actors(all_namespaces=True)
            name = min(each["name"] for each in actors if "#Replica#" in each["name"])
            ray.kill(ray.get_actor(name, namespace="serve"))
            print("killed", flush=True)
    serve.shutdown()


if __name__ == "__main__":
    main()
