"""The backend of torch.compile under its name, whatever the installed metadata says."""

from __future__ import annotations

import torch

__all__ = ["register"]


def register() -> None:
    """Register it, unless the entry point of the installed package has done that."""
    if "trt_rt" not in torch._dynamo.list_backends(exclude_tags=()):
        from trt_rt.program.dynamo import trt_rt_backend

        torch._dynamo.register_backend(trt_rt_backend, "trt_rt")
