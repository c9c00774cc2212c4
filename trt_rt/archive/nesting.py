"""Refuses to save programs whose arguments or results are in objects of classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from torch.utils._pytree import TreeSpec

from trt_rt.errors import ArchiveError

__all__ = ["refuse_nesting"]

_ALLOWED = (None, type(None), tuple, list, dict, OrderedDict)


def refuse_nesting(nesting: Sequence[TreeSpec]) -> None:
    """Refuse what a file may not name: reading it would import the module of a class.

    Parameters
    ----------
    nesting : sequence of TreeSpec
        Of the arguments and of the result of a program.

    Raises
    ------
    ArchiveError
        A class other than tuple, list and dict is among them.
    """
    for what, spec in zip(("takes arguments", "returns results"), nesting, strict=True):
        for kind, context in _classes(spec):
            # Of a named tuple, PyTorch's type is `namedtuple`, and the class is the context.
            named = context if isinstance(context, type) else kind
            if kind not in _ALLOWED:
                raise ArchiveError(
                    f"the program {what} in a {named.__name__}, and a file can hold tuples, lists and dicts "
                    "only: to read a class, a program would have to import its module. Let the model's "
                    "forward use a tuple or a dict (models of transformers do with return_dict=False), and "
                    "compile and save it again."
                )


def _classes(spec: TreeSpec) -> Iterable[tuple[Any, Any]]:
    yield spec.type, spec.context
    for child in spec.children():
        yield from _classes(child)
