"""The device that a program from a file runs on."""

from __future__ import annotations

from typing import Any

import torch

from trt_rt.errors import ArchiveError

__all__ = ["choose_device"]


def choose_device(path: str, wanted: Any, saved_for: str) -> torch.device:
    """Return a device with a number, if it is a GPU.

    Parameters
    ----------
    path : str
        The file, for messages.
    wanted : torch.device, str, int or None
        What the caller asked for.
    saved_for : str
        What the file was made for, "cpu" or "cuda"; taken if nothing was asked for.

    Raises
    ------
    ArchiveError
        PyTorch sees no GPU, and one is needed.
    """
    if isinstance(wanted, int):
        wanted = f"cuda:{wanted}"
    chosen = torch.device(wanted if wanted is not None else saved_for)
    if chosen.type == "cuda" and saved_for == "cuda" and not torch.cuda.is_available():
        raise ArchiveError(
            f"{path} was saved for a GPU, and PyTorch sees none on this machine: check "
            "torch.cuda.is_available()."
        )
    if chosen.type == "cuda" and chosen.index is None and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return chosen
