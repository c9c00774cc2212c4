"""How a program is called: the nesting of its arguments and results, and its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils._pytree import TreeSpec

__all__ = ["CallingConvention"]


@dataclass(frozen=True)
class CallingConvention:
    """How a program is called.

    Attributes
    ----------
    in_spec, out_spec : TreeSpec
        Nesting of (args, kwargs), and of the result.
    signature : inspect.Signature or None
        Of the model's ``forward``; None where it is not known.
    examples : sequence
        The leaves of the example arguments. Of a tensor only that it is one is used: its dtype and its sizes
        are those of the graph.
    """

    in_spec: TreeSpec
    out_spec: TreeSpec
    signature: inspect.Signature | None
    examples: Sequence[Any]
