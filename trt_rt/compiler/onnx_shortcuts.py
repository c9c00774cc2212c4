"""Shortcuts for what onnxscript and onnx_ir compute again and again during an export, with the same results.

An export asks for the signature of an ONNX operator at each of its uses, and tries each rule of its optimizer
at each node. For a network with a thousand nodes that takes half of the export.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

__all__ = ["shortcuts"]

_signatures: dict[tuple[str, str, int], Any] = {}


@contextmanager
def shortcuts() -> Iterator[None]:
    """Take the shortcuts while the context lasts; one thread at a time.

    Where a version of these packages works in another way, nothing is changed.
    """
    with ExitStack() as patches:
        for patch in (_patch_of_signatures, _patch_of_rules):
            try:
                patches.enter_context(patch())
            except (ImportError, AttributeError):
                continue
        yield


def _patch_of_signatures() -> Any:
    """Make the signature of an operator once for a process. An operator is a name in a version."""
    from onnx_ir.schemas import OpSignature

    make = OpSignature.from_op_schema

    def from_op_schema(schema: Any) -> Any:
        key = (schema.domain, schema.name, schema.since_version)
        if key not in _signatures:
            _signatures[key] = make(schema)
        return _signatures[key]

    return mock.patch.object(OpSignature, "from_op_schema", staticmethod(from_op_schema))


def _patch_of_rules() -> Any:
    """Try a rule of the optimizer only at nodes of the operator that its pattern ends with.

    Its matcher would find that out itself, at forty times the cost.
    """
    from onnxscript.rewriter import RewriteRule

    tried = RewriteRule.try_rewrite

    def try_rewrite(rule: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        wanted = _last_operator(rule)
        if wanted is not None and wanted != node.op_identifier():
            return None
        return tried(rule, model, graph, node, **options)

    return mock.patch.object(RewriteRule, "try_rewrite", try_rewrite)


@functools.lru_cache(maxsize=512)  # rules are made once for a process, or for a call
def _last_operator(rule: Any) -> Any:
    """The operator at which a rule's pattern begins to match; None where it may be any."""
    nodes = getattr(getattr(rule, "_target_pattern", None), "output_nodes", None)
    return nodes[0].op_identifier() if nodes else None
