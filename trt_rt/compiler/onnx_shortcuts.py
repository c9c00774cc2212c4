"""Shortcuts for what torch.onnx and onnxscript compute again and again in an export, with the same results.

An export runs every operator on tensors without memory to find out which arguments are promoted. It infers
shapes that the program already has. It asks for the signature of an ONNX operator at each of its uses, and
tries each rule of its optimizer at each node. In a network with a thousand nodes this is half of the time.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

__all__ = ["shortcuts"]

_signatures: dict[tuple[str, str, int], Any] = {}


@contextmanager
def shortcuts() -> Iterator[None]:
    """Take the shortcuts while the context lasts; one thread at a time.

    Where a version of these packages works in another way, nothing is changed.
    """
    with ExitStack() as patches:
        for patch in (
            _patch_of_type_promotion,
            _patch_of_assertions,
            _patch_of_signatures,
            _patch_of_inference,
            _patch_of_rules,
            _patch_of_protocols,
        ):
            try:
                patches.enter_context(patch())
            except (ImportError, AttributeError):
                continue
        yield


def _patch_of_type_promotion() -> Any:
    """Take the values of operators from the graph; only operators whose arguments are promoted run again.

    torch.onnx runs all of them, to learn the dtypes of the arguments of the next ones.
    """
    from torch.onnx._internal.fx.passes import type_promotion

    interpreter = type_promotion._TypePromotionInterpreter
    run = interpreter.run_node
    rule_of = type_promotion.get_type_promotion_rule

    def run_node(self: Any, node: Any) -> Any:
        if node.op != "call_function":
            args, kwargs = self.fetch_args_kwargs_from_env(node)
            return getattr(self, node.op)(node.target, args, kwargs)
        if "val" not in node.meta:
            return run(self, node)
        if rule := rule_of(node, self.type_promotion_table):
            with self._set_current_node(node):
                self._maybe_promote_node(node, rule)
        return node.meta["val"]

    return mock.patch.object(interpreter, "run_node", run_node)


def _patch_of_assertions() -> Any:
    """Write the code of a graph again only if it may have had an assertion to remove.

    Assertions are operators that return nothing.
    """
    from torch.onnx._internal.exporter import _fx_passes

    remove = _fx_passes.remove_assertion_nodes

    def remove_assertion_nodes(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
        graphs = [one.graph for one in module.modules() if isinstance(one, torch.fx.GraphModule)]
        operators = (node.target for graph in graphs for node in graph.nodes)
        if all(one._schema.returns for one in operators if isinstance(one, torch._ops.OpOverload)):
            return module
        return remove(module)

    return mock.patch.object(_fx_passes, "remove_assertion_nodes", remove_assertion_nodes)


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


def _patch_of_inference() -> Any:
    """Infer the shapes of a node's results only where the program has not told them."""
    from onnxscript.optimizer._constant_folding import FoldConstantsPass

    infer = FoldConstantsPass._do_inference

    def _do_inference(self: Any, node: Any) -> None:
        if not all(map(_has_known_shape, node.outputs)):
            infer(self, node)

    return mock.patch.object(FoldConstantsPass, "_do_inference", _do_inference)


def _has_known_shape(value: Any) -> bool:
    """Whether every size of a value is a number or has a name."""
    if value.type is None or value.shape is None:
        return False
    return all(isinstance(size, int) or size.value is not None for size in value.shape)


def _patch_of_rules() -> Any:
    """Try a rule of the optimizer only at nodes of the operator that its pattern ends with.

    Its matcher would find that out itself, at forty times the cost.
    """
    from onnxscript.rewriter import RewriteRule

    tried = RewriteRule.try_rewrite

    def try_rewrite(rule: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        if _can_end(rule, node.domain, node.op_type):
            return tried(rule, model, graph, node, **options)
        return None

    return mock.patch.object(RewriteRule, "try_rewrite", try_rewrite)


@functools.lru_cache(maxsize=1 << 14)  # rules are made once for a process, or for a call
def _can_end(rule: Any, domain: str, operator: str) -> bool:
    """Whether a rule's pattern can end with an operator; the pattern begins to match there."""
    try:
        last = rule._target_pattern.output_nodes[0]
        return bool(last.domain.matches(domain) and last.op.matches(operator))
    except (AttributeError, IndexError):
        return True


def _patch_of_protocols() -> Any:
    """List the members of a protocol once.

    onnx_ir compares with protocols wherever it converts a value. Before Python 3.12, each comparison lists
    the members anew.
    """
    members: Any = getattr(typing, "_get_protocol_attrs")  # noqa: B009  # has no annotations
    return mock.patch.object(typing, "_get_protocol_attrs", functools.cache(members))
