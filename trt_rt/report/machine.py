"""The machine that a measurement ran on, as far as it explains the numbers."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from trt_rt._core.processor_name import processor_name

__all__ = ["describe_machine", "same_machine"]

_IDENTITY = ("processor", "cores", "gpu", "python", "torch")
"""Two results are compared only if these facts are equal."""


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return the facts about the machine, the processor and the GPU.

    Parameters
    ----------
    device : torch.device
        Where the measured calls run.

    Returns
    -------
    dict
        Names of facts and their values, as JSON has them. A fact that the machine does not tell is None.
    """
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "gpu": None,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "gpu_memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            **_clocks(device),
        }
    return facts


def same_machine(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Return why results of two machines must not be compared, or "" if they may be."""
    differences = [
        f"{name} {one.get(name)!r} and {other.get(name)!r}"
        for name in _IDENTITY
        if one.get(name) != other.get(name)
    ]
    return "; ".join(differences)


def _clocks(device: torch.device) -> dict[str, Any]:
    """Return driver and clocks, where the package nvidia-ml-py is installed."""
    names = ("driver", "sm_clock_mhz", "memory_clock_mhz")
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # not installed, or no NVML on this machine
        return dict.fromkeys(names)
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        values = (
            pynvml.nvmlSystemGetDriverVersion(),
            pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
        )
        return dict(zip(names, values, strict=True))
    except pynvml.NVMLError:
        return dict.fromkeys(names)
    finally:
        pynvml.nvmlShutdown()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
