"""``trt-rt doctor``: what this machine has, what it can build and run, and why it cannot do more."""

from __future__ import annotations

import argparse
import dataclasses
import platform
from typing import Any

from trt_rt import __version__
from trt_rt.cli.command import Result, Subparsers, add_command, print_table

__all__ = ["add"]


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    add_command(
        subparsers, "doctor", _run, "Say what this machine can build and run, and why it cannot do more."
    )


def _run(arguments: argparse.Namespace) -> Result:
    machine = _examine()
    return Result(machine, lambda: _print(machine))


def _print(machine: dict[str, Any]) -> None:
    driver = machine["driver"]
    rows = [
        ("trt_rt", machine["trt_rt"]),
        ("Python", machine["python"]),
        ("PyTorch", machine["torch"] + (f" (CUDA {machine['torch_cuda']})" if machine["torch_cuda"] else "")),
        ("driver", f"supports CUDA {driver['cuda']}" if driver["cuda"] else driver["problem"]),
    ]
    for gpu in machine["gpus"]:
        description = f"{gpu['name']}, compute capability {gpu['compute_capability']}"
        rows.append((f"GPU {gpu['index']}", f"{description}, {gpu['memory_bytes'] / 2**30:.1f} GiB"))
    if not machine["gpus"]:
        rows.append(("GPU", machine["no_gpu"]))
    print_table("This machine", ("what", "found"), rows)
    print_table(
        "Backends",
        ("backend", "version", "builds", "runs", "why not"),
        [
            (
                backend["name"],
                backend["version"] or "-",
                _yes_or_no(backend["can_build"]),
                _yes_or_no(backend["can_run"]),
                backend["reason"],
            )
            for backend in machine["backends"].values()
        ],
    )


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def _examine() -> dict[str, Any]:
    import torch

    from trt_rt._core.driver import device_count
    from trt_rt.backend import backends

    count, problem = device_count()
    visible = torch.cuda.is_available()
    no_gpu = problem or "PyTorch sees none: it is built without CUDA, or CUDA_VISIBLE_DEVICES hides them"
    return {
        "trt_rt": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torch_cuda": torch.version.cuda,
        "driver": _driver(),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())] if visible else [],
        "no_gpu": "" if visible and count else no_gpu,
        "backends": {name: dataclasses.asdict(status) for name, status in backends().items()},
    }


def _driver() -> dict[str, str | None]:
    """Return the newest CUDA that the driver supports, or why there is none."""
    from cuda.bindings import driver

    from trt_rt._core.driver import device_count

    try:
        error, version = driver.cuDriverGetVersion()
    except RuntimeError:
        return {"cuda": None, "problem": device_count()[1]}
    if error != driver.CUresult.CUDA_SUCCESS:
        return {"cuda": None, "problem": f"the NVIDIA driver does not tell its version: {error.name}"}
    return {"cuda": f"{version // 1000}.{version % 1000 // 10}", "problem": None}


def _gpu(index: int) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(index)
    return {
        "index": index,
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
    }
