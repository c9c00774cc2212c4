"""The nesting of a program's arguments and results, as it stands in files."""

from __future__ import annotations

import json
from typing import Any

from torch.utils._pytree import TreeSpec, treespec_loads

from trt_rt.archive.strict_json import parse
from trt_rt.errors import ArchiveError

__all__ = ["read_tree_spec"]

_PROTOCOL = 1
_DEEPEST = 64
_SEQUENCES = ("builtins.tuple", "builtins.list")
_DICTS = ("builtins.dict", "collections.OrderedDict")


def read_tree_spec(text: str, where: str) -> tuple[TreeSpec, str]:
    """Return a nesting of tuples, lists and dicts, and its checked text.

    Parameters
    ----------
    text : str
        As ``torch.utils._pytree.treespec_dumps`` writes it.
    where : str
        For messages.

    Raises
    ------
    ArchiveError
        It has other types. PyTorch's reader would ask a class, or an enum's module, that the file names.
    """
    value = parse(text.encode(), where)
    if type(value) is not list or len(value) != 2 or value[0] != _PROTOCOL:
        raise ArchiveError(f"{where}: the nesting of arguments is not of version {_PROTOCOL}.")
    _check(value[1], where, 0)
    checked = json.dumps(value)
    return treespec_loads(checked), checked


def _check(node: Any, where: str, depth: int) -> None:
    if type(node) is not dict or node.keys() != {"type", "context", "children_spec"} or depth > _DEEPEST:
        raise ArchiveError(f"{where}: the nesting of arguments is not as PyTorch writes it.")
    kind, context, children = node["type"], node["context"], node["children_spec"]
    if type(children) is not list:
        raise ArchiveError(f"{where}: the nesting of arguments is not as PyTorch writes it.")
    if kind is None:
        is_right = context is None and not children
    elif kind in _SEQUENCES:
        is_right = context == "null"
    elif kind in _DICTS:
        keys = parse(context.encode(), where) if type(context) is str else None
        is_right = (
            type(keys) is list
            and all(type(key) in (str, int) for key in keys)
            and len(set(keys)) == len(keys) == len(children)
        )
    else:
        raise ArchiveError(
            f"{where}: arguments or results are nested in a {str(kind)[:80]!r}, and only tuples, lists and "
            "dicts "
            "are allowed. Let the model return these, and save the program again."
        )
    if not is_right:
        raise ArchiveError(f"{where}: the nesting of arguments contradicts itself.")
    for child in children:
        _check(child, where, depth + 1)
