"""Programs in files that nobody has exported: calls of any operators, with any arguments."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch._export.serde.serialize import EnumEncoder, _dataclass_to_dict, serialize_tensor_meta
from torch.utils import _pytree as pytree

from tests.archive.saved import MODEL, forge, records_of
from trt_rt.archive import save

__all__ = ["Call", "forged_program", "number", "tensor"]

Call = dict[str, Any]
"""A node of a program, as its file has it."""


def tensor(name: str) -> dict[str, Any]:
    """Return the argument that is a tensor of the program."""
    return {"as_tensor": {"name": name}}


def number(name: str) -> dict[str, Any]:
    """Return the argument that is a number which the program computes."""
    return {"as_sym_int": {"as_name": name}}


class _Identity(torch.nn.Module):
    def forward(self, x0: torch.Tensor) -> torch.Tensor:
        return x0.clone()


@cache
def _template() -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.pt2")
        save(torch.export.export(_Identity(), (torch.ones(2),)), path)
        return records_of(path)


def _meta(value: torch.Tensor) -> Any:
    return json.loads(json.dumps(_dataclass_to_dict(serialize_tensor_meta(value)), cls=EnumEncoder))


def forged_program(
    path: Path, inputs: Sequence[torch.Tensor], calls: Sequence[Call], results: Sequence[dict[str, Any]]
) -> Path:
    """Write a program, and return its path.

    Parameters
    ----------
    path : Path
        The file.
    inputs : sequence of torch.Tensor
        The inputs ``x0``, ``x1``, ... are like these. All other tensors are said to be like the first.
    calls : sequence of dict
        Each has a "target", such as "aten.add.Tensor", and "inputs": pairs of the argument's name and value.
        "outputs" are arguments; default: one tensor, of the name of the call, "y0", "y1", ...
    results : sequence of dict
        Arguments that are returned.
    """
    records = dict(_template())
    model = json.loads(records[MODEL])
    module = model["graph_module"]
    graph = module["graph"]
    names = [f"x{index}" for index in range(len(inputs))]
    graph["inputs"] = [tensor(name) for name in names]
    graph["tensor_values"] = {name: _meta(value) for name, value in zip(names, inputs, strict=True)}
    graph["nodes"] = [_node(index, call) for index, call in enumerate(calls)]
    _declare(graph, graph["nodes"], graph["tensor_values"]["x0"])
    graph["outputs"] = list(results)
    signature = module["signature"]
    signature["input_specs"] = [{"user_input": {"arg": tensor(name)}} for name in names]
    signature["output_specs"] = [{"user_output": {"arg": result}} for result in results]
    nesting = module["module_call_graph"][0]["signature"]
    nesting["in_spec"] = pytree.treespec_dumps(pytree.tree_structure((tuple(inputs), {})))
    nesting["out_spec"] = pytree.treespec_dumps(
        pytree.tree_structure(tuple(results and inputs[:1] * len(results)))
    )
    nesting["forward_arg_names"] = names
    records[MODEL] = json.dumps(model).encode()
    return forge(records, path)


def _node(index: int, call: Call) -> dict[str, Any]:
    name = f"y{index}"
    target = call["target"]
    return {
        "target": f"torch.ops.{target}" if target.startswith(("aten.", "higher_order.")) else target,
        "inputs": [
            {"name": key, "arg": value, "kind": call.get("kinds", {}).get(key, 1)}
            for key, value in call["inputs"]
        ],
        "outputs": call.get("outputs", [tensor(name)]),
        "metadata": {},
        "is_hop_single_tensor_return": call.get("is_hop_single_tensor_return"),
        "name": f"call{index}",
    }


def _declare(graph: dict[str, Any], nodes: Sequence[dict[str, Any]], meta: Any) -> None:
    for node in nodes:
        for output in node["outputs"]:
            ((kind, value),) = output.items()
            for each in value if isinstance(value, list) else [value]:
                if kind in ("as_tensor", "as_tensors"):
                    graph["tensor_values"][each["name"]] = copy.deepcopy(meta)
                elif kind == "as_sym_int":
                    graph["sym_int_values"][each["as_name"]] = {
                        "as_expr": {
                            "expr_str": f"Symbol('u{len(graph['sym_int_values'])}', integer=True)",
                            "hint": None,
                        }
                    }
                elif kind == "as_sym_float":
                    graph["sym_float_values"][each["as_name"]] = {"as_float": 1.0}
                elif kind == "as_sym_bool":
                    graph["sym_bool_values"][each["as_name"]] = {"as_bool": True}
