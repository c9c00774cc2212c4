"""Finds the engines of a program, wherever in it they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from trt_rt.module.trt_module import TRTModule

__all__ = ["as_module", "find_engines"]


def find_engines(module: torch.nn.Module | ExportedProgram) -> list[TRTModule]:
    """Every `TRTModule` of a program.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything that has some: a tree of modules, a ``torch.fx.GraphModule``, a compiled
        module, one that was loaded. Found are submodules, and modules in attributes, lists, tuples, sets and
        dicts of modules, which PyTorch does not count as submodules.

    Returns
    -------
    list of TRTModule
        Each once, in the order of the tree.

    Raises
    ------
    TypeError
        If `module` is neither a module nor a program.
    ValueError
        If there is none.
    """
    root = as_module(module)
    found = list(_engines_of(root, set()))
    if not found:
        raise ValueError(
            f"there is no TensorRT engine in this {type(root).__name__}: none of it is a TRTModule; "
            "pass the module that holds the engines."
        )
    return found


def as_module(program: torch.nn.Module | ExportedProgram) -> torch.nn.Module:
    """What is called to run a program: the module itself, or the module of an exported program.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(program, torch.nn.Module):
        return program
    if isinstance(program, ExportedProgram):
        return program.module()
    raise TypeError(
        "a torch.nn.Module or a torch.export.ExportedProgram is needed, since engines are found in these "
        f"only, not {type(program).__name__}."
    )


def _engines_of(value: Any, seen: set[int]) -> Iterator[TRTModule]:
    if not isinstance(value, (torch.nn.Module, list, tuple, set, frozenset, Mapping)) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, TRTModule):
        yield value
    elif isinstance(value, torch.nn.Module):
        for submodule in value.children():
            yield from _engines_of(submodule, seen)
        yield from _engines_of(vars(value), seen)
    else:
        for item in list(value.values() if isinstance(value, Mapping) else value):
            yield from _engines_of(item, seen)
