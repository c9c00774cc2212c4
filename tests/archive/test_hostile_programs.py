"""Files that try to run code, or that name what files may not: refused before PyTorch sees them."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.archive.saved import MODEL, forge, records_of, rewrite
from trt_rt.archive import load, save
from trt_rt.errors import ArchiveError

pytestmark = pytest.mark.behaviour(25, 28)

_ran: list[str] = []


class Bomb:
    """Unpickling it runs code."""

    def __reduce__(self) -> Any:
        return _explode, ("unpickled",)


def _explode(what: str) -> None:
    _ran.append(what)


@pytest.fixture(autouse=True)
def _nothing_runs() -> Iterator[None]:
    _ran.clear()
    yield
    assert _ran == []


_CODE = f"__import__({__name__!r}, fromlist=['_explode'])._explode('evaluated')"


# The five ways in which torch.export.load runs code of a file: it evaluates symbolic sizes, unpickles example
# inputs, executes guards, unpickles tensors of classes and objects, and imports modules of enums.


def test_an_expression_is_not_evaluated(archive: Path, tmp_path: Path) -> None:
    def change(model: dict[str, Any]) -> None:
        values = model["graph_module"]["graph"]["tensor_values"]
        values["x"]["sizes"][0]["as_expr"]["expr_str"] = _CODE

    with pytest.raises(ArchiveError, match="not allowed in an expression"):
        load(rewrite(archive, tmp_path / "a.pt2", change))


def test_example_inputs_are_not_unpickled(archive: Path, tmp_path: Path) -> None:
    records = records_of(archive)
    buffer = io.BytesIO()
    torch.save(Bomb(), buffer)
    records["data/sample_inputs/model.pt"] = buffer.getvalue()
    program = load(forge(records, tmp_path / "a.pt2"))
    assert program(torch.zeros(2, 4), {"q": torch.ones(2)}, flag=True)["last"].shape == (2, 2)


def test_guards_are_not_executed(archive: Path, tmp_path: Path) -> None:
    def change(model: dict[str, Any]) -> None:
        model["guards_code"] = [_CODE]

    program = load(rewrite(archive, tmp_path / "a.pt2", change))
    program(torch.zeros(2, 4), {"q": torch.ones(2)}, flag=True)


@pytest.mark.parametrize("folder", ["weights", "constants"])
@pytest.mark.parametrize("record", ["weight_9", "tensor_9", "opaque_obj_0", "custom_obj_0"])
def test_pickled_tensors_are_refused(archive: Path, tmp_path: Path, folder: str, record: str) -> None:
    records = records_of(archive)
    config = f"data/{folder}/model_{folder}_config.json"
    value = json.loads(records[config])
    value["config"]["bomb"] = {
        "path_name": record,
        "is_param": False,
        "use_pickle": True,
        "tensor_meta": None,
    }
    records[f"data/{folder}/{record}"] = pickle.dumps(Bomb())
    records[config] = json.dumps(value).encode()
    with pytest.raises(ArchiveError, match="stored as a pickle"):
        load(forge(records, tmp_path / "a.pt2"))


def test_a_nesting_cannot_import_modules(archive: Path, tmp_path: Path) -> None:
    # PyTorch imports the module of an enum that is in the context of a nesting.
    context = json.dumps({"__enum__": True, "fqn": f"{__name__}.Bomb", "name": "x"})
    spec = [1, {"type": "collections.defaultdict", "context": context, "children_spec": []}]

    def change(model: dict[str, Any]) -> None:
        model["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps(spec)

    with pytest.raises(ArchiveError, match="only tuples, lists and dicts"):
        load(rewrite(archive, tmp_path / "a.pt2", change))


def test_the_keys_of_a_nesting_are_words_and_numbers(archive: Path, tmp_path: Path) -> None:
    leaf = {"type": None, "context": None, "children_spec": []}
    context = json.dumps([{"__enum__": True, "fqn": f"{__name__}.Bomb", "name": "x"}])
    spec = [1, {"type": "builtins.dict", "context": context, "children_spec": [leaf]}]

    def change(model: dict[str, Any]) -> None:
        model["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps(spec)

    with pytest.raises(ArchiveError, match="contradicts itself"):
        load(rewrite(archive, tmp_path / "a.pt2", change))


def _first_node(model: dict[str, Any]) -> dict[str, Any]:
    node: dict[str, Any] = model["graph_module"]["graph"]["nodes"][0]
    return node


@pytest.mark.parametrize(
    "target",
    [
        "torch.hub.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.as_strided.default",
        "torch.ops.load_library",
        "_operator.methodcaller",
        "_operator.pow",
        "math.factorial",
        "torch.serialization.load",
        "#extension:operator",
        "os.system",
        "torch.ops.unknown.operator.default",
        "torch.ops.higher_order.map_impl.default",
    ],
)
def test_only_listed_operators_are_called(archive: Path, tmp_path: Path, target: str) -> None:
    with pytest.raises(ArchiveError, match="not among the operators that files may call"):
        load(rewrite(archive, tmp_path / "a.pt2", lambda model: _first_node(model).update(target=target)))


@pytest.mark.parametrize(
    "name", ["a; import os", "a\nb", "__import__", "lambda", "é", "1a", "", "a" * 2000, "x.y", "x[0]"]
)
@pytest.mark.parametrize("place", ["node", "parameter", "value"])
def test_names_are_identifiers(archive: Path, tmp_path: Path, name: str, place: str) -> None:
    def change(model: dict[str, Any]) -> None:
        module = model["graph_module"]
        if place == "node":
            _first_node(model)["name"] = name
        elif place == "parameter":
            module["module_call_graph"][0]["signature"]["forward_arg_names"][0] = name
        else:
            module["graph"]["tensor_values"][name] = module["graph"]["tensor_values"]["x"]

    with pytest.raises(ArchiveError, match="not allowed as a name"):
        load(rewrite(archive, tmp_path / "a.pt2", change))


@pytest.mark.parametrize("name", ["__class__", "last.__init__", "a b", "", "../x", "last..weight"])
def test_names_of_weights_are_paths_of_words(archive: Path, tmp_path: Path, name: str) -> None:
    def change(model: dict[str, Any]) -> None:
        for spec in model["graph_module"]["signature"]["input_specs"]:
            if "parameter" in spec:
                spec["parameter"]["parameter_name"] = name

    with pytest.raises(ArchiveError, match="as the name of a weight"):
        load(rewrite(archive, tmp_path / "a.pt2", change))


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "Symbol('s0; x')",
        "Symbol('s0', evil=True)",
        "Pow(Integer(9), Integer(9))",
        "Pow(Symbol('s0'), Integer(1000))",
        "Integer(9**9)",
        f"Integer({'9' * 4000})",
        "sympify('1')",
        "Symbol('s0').__class__",
        "(lambda: 1)()",
        "[Integer(1)]",
        "Add(Integer(1), *(1, 2))",
        "Float('inf')",
        "Function('f')(Integer(1))",
        "Add(" * 300 + "Integer(1)" + ")" * 300,
        "not python",
        "",
    ],
)
def test_expressions_have_a_grammar(archive: Path, tmp_path: Path, text: str) -> None:
    def change(model: dict[str, Any]) -> None:
        for value in model["graph_module"]["graph"]["tensor_values"].values():
            value["sizes"] = [{"as_expr": {"expr_str": text, "hint": None}}]

    with pytest.raises(ArchiveError, match=r"expression|symbol|integer|number|power|function"):
        load(rewrite(archive, tmp_path / "a.pt2", change))


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *keys, last = path.split("/")

    def change(model: dict[str, Any]) -> None:
        found: Any = model
        for key in keys:
            found = found[int(key) if isinstance(found, list) else key]
        found[int(last) if isinstance(found, list) else last] = value

    return change


_OBJECT = {"name": "a", "class_fqn": "b"}
_GRAPH = "graph_module/graph"
_ARGUMENT = f"{_GRAPH}/nodes/0/inputs/0/arg"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version/major", 99, "schema has version 99"),
        ("graph_module", [], "not a program"),
        (f"{_GRAPH}/nodes", {"a": 1}, "not a program"),
        (f"{_GRAPH}/nodes/0/outputs", [{"as_tensor": {"name": "a"}, "as_int": 1}], "2 values"),
        (_ARGUMENT, {"as_operator": "torch.hub.load"}, "as_operator"),
        (_ARGUMENT, {"as_custom_obj": _OBJECT}, "as_custom_obj"),
        (_ARGUMENT, {"as_int": 2**70}, "64 bits"),
        (_ARGUMENT, {"as_tensor": {"name": "nobody"}}, "cannot read"),
        (f"{_GRAPH}/custom_obj_values", {"a": _OBJECT}, "objects of classes"),
        (f"{_GRAPH}/tensor_values/x/device/type", "xla", "device"),
        (f"{_GRAPH}/tensor_values/x/dtype", 99, "ScalarType"),
        ("graph_module/module_call_graph", [], "nested"),
        ("graph_module/signature/input_specs/0", {"token": {"arg": {"name": "a"}}}, "kind 'token'"),
        ("range_constraints", {"s0 + 1": {"min_val": 0, "max_val": 1}}, "name of a size"),
    ],
)
def test_what_is_not_a_program_is_refused(
    archive: Path, tmp_path: Path, path: str, value: Any, message: str
) -> None:
    with pytest.raises(ArchiveError, match=message):
        load(rewrite(archive, tmp_path / "a.pt2", _set(path, value)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not JSON"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" + b"0," * 6_000_000 + b"0]", "values"),
    ],
)
def test_json_is_read_strictly(archive: Path, tmp_path: Path, text: bytes, message: str) -> None:
    records = records_of(archive)
    records[MODEL] = text
    with pytest.raises(ArchiveError, match=message):
        load(forge(records, tmp_path / "a.pt2"))


def test_an_operator_of_ones_own_must_be_named(tmp_path: Path) -> None:
    library = torch.library.Library("trt_rt_test_archive", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
    torch.library.register_fake("trt_rt_test_archive::twice", lambda x: x * 2, lib=library)

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = torch.ops.trt_rt_test_archive.twice(x)
            return result

    exported = torch.export.export(Model(), (torch.ones(2),))
    path = tmp_path / "own.pt2"
    with pytest.raises(ArchiveError, match="operators="):
        save(exported, path)
    assert not path.exists()
    save(exported, path, operators=["trt_rt_test_archive::twice"])
    with pytest.raises(ArchiveError, match="operators="):
        load(path)
    program = load(path, operators=["trt_rt_test_archive::twice"])
    assert program(torch.ones(2)).tolist() == [2, 2]
