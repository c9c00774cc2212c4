"""Finds the engines anywhere in a program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram

from trt_rt.module.trt_module import TRTModule

__all__ = ["as_module", "find_engines"]

# Python's own, and classes derived from them. Others may compute their items, or read them from a disk.
_CONTAINERS = (list, tuple, set, frozenset, dict)
_ITEMS_WITHOUT_A_MODULE = 10_000
_END: Any = object()


def find_engines(module: torch.nn.Module | ExportedProgram) -> list[TRTModule]:
    """Return every `TRTModule` of a program.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything that has some: a tree of modules, a ``torch.fx.GraphModule``, a compiled
        module, one that was loaded. Found are all submodules, and modules in attributes, lists, tuples, sets
        and dicts, which PyTorch does not count as submodules. A container is data, and not searched further,
        after 10,000 items in a row without a module.

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
    found = _engines_of(root)
    if not found:
        raise ValueError(
            f"there is no TensorRT engine in this {type(root).__name__}: none of it is a TRTModule; "
            "pass the module that holds the engines."
        )
    return found


def as_module(program: torch.nn.Module | ExportedProgram) -> torch.nn.Module:
    """Return the module that runs a program: the module itself, or the module of an exported program.

    Raises
    ------
    TypeError
        `program` is neither.
    """
    if isinstance(program, torch.nn.Module):
        return program
    if isinstance(program, ExportedProgram):
        return program.module()
    raise TypeError(
        "a torch.nn.Module or a torch.export.ExportedProgram is needed, since engines are found in these "
        f"only, not {type(program).__name__}."
    )


def _engines_of(root: torch.nn.Module) -> list[TRTModule]:
    found: list[TRTModule] = []
    seen: set[int] = set()
    search = [iter([root])]  # the innermost iterator last: a stack of our own has no recursion limit
    while search:
        module = next(search[-1], None)
        if module is None:
            search.pop()
        elif id(module) not in seen:
            seen.add(id(module))
            if isinstance(module, TRTModule):
                found.append(module)
            else:
                search.append(_parts_of(module, seen))
    return found


def _parts_of(module: torch.nn.Module, seen: set[int]) -> Iterator[torch.nn.Module]:
    """Yield the submodules of a module, and then the modules in its other attributes."""
    yield from module.children()
    for value in list(vars(module).values()):
        yield from _modules_in(value, seen)


def _modules_in(value: Any, seen: set[int]) -> Iterator[torch.nn.Module]:
    """Yield a module, or the modules in a container; `seen` has the containers that were looked into."""
    left = _ITEMS_WITHOUT_A_MODULE
    search = [iter([value])]
    while search and left:
        item = next(search[-1], _END)
        kind = type(item)  # not __class__, which a lazy object computes
        if item is _END:
            search.pop()
        elif issubclass(kind, torch.nn.Module):
            left = _ITEMS_WITHOUT_A_MODULE
            yield item
        else:
            left -= 1
            if issubclass(kind, _CONTAINERS) and id(item) not in seen:
                seen.add(id(item))
                search.append(_items_of(item))


def _items_of(container: Any) -> Iterator[Any]:
    """Return the items that a container holds. A class derived from Python's may show others, or none."""
    if isinstance(container, list):
        return list.__iter__(container)
    if isinstance(container, tuple):
        return tuple.__iter__(container)
    # Copied, because iteration fails when another thread adds an item.
    if isinstance(container, dict):
        return iter(list(dict.values(container)))
    kind = set if isinstance(container, set) else frozenset
    return iter(list(kind.__iter__(container)))
