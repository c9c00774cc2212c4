"""Imports point downwards in the order of docs/design.md's table of layers, and files import in no circle.

Every import counts, also in functions and under ``TYPE_CHECKING``: a circle of types is as hard to read as a
circle of calls. Stubs (``.pyi``) are not read, because they repeat what their module imports.
"""

from __future__ import annotations

import ast
import graphlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_PACKAGE = "trt_rt"

# from X import a, b; from X cimport (a, b as c); import X.y; cimport X.y; include "y.pxi"
_CYTHON_FROM = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n#]*)", re.M)
_CYTHON_IMPORT = re.compile(r"^[ \t]*c?import[ \t]+([\w.]+(?:[ \t]*,[ \t]*[\w.]+)*)", re.M)
_CYTHON_INCLUDE = re.compile(r"^[ \t]*include[ \t]+[\"'](.+?)\.\w+[\"']", re.M)


def _python_imports(source: str, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _cython_imports(source: str, package: str) -> Iterator[str]:
    for module, names in _CYTHON_FROM.findall(source):
        for name in re.findall(r"\w+(?:\s+as\s+\w+)?", re.sub(r"#.*", "", names)):
            yield f"{_absolute(module, package)}.{name.split()[0]}"
    for names in _CYTHON_IMPORT.findall(source):
        yield from (name.strip() for name in names.split(","))
    for path in _CYTHON_INCLUDE.findall(source):
        yield f"{package}.{path.replace('/', '.')}"


def _absolute(module: str, package: str) -> str:
    """The absolute name of a module that a file of `package` imports, perhaps by a name with leading dots."""
    dots = len(module) - len(module.lstrip("."))
    if not dots:
        return module
    parents = package.split(".")[: len(package.split(".")) - dots + 1]
    return ".".join([*parents, module[dots:]]).rstrip(".")


def _modules(root: Path) -> dict[str, list[Path]]:
    """Files of the package by dotted name. A ``.pyx`` and its ``.pxd`` are one module."""
    modules: dict[str, list[Path]] = {}
    for file in sorted((root / _PACKAGE).rglob("*")):
        if file.suffix in (".py", ".pyx", ".pxd", ".pxi"):
            parts = file.relative_to(root).with_suffix("").parts
            modules.setdefault(".".join(part for part in parts if part != "__init__"), []).append(file)
    return modules


def _import_graph(root: Path) -> dict[str, set[str]]:
    """For each module the modules of the package that it imports."""
    modules = _modules(root)
    graph: dict[str, set[str]] = {}
    for module, files in modules.items():
        graph[module] = set()
        for file in files:
            package = module if file.stem == "__init__" else module.rpartition(".")[0]
            read = _python_imports if file.suffix == ".py" else _cython_imports
            for name in read(file.read_text(), package):
                while name and name not in modules:  # a name in a module, or a module of another package
                    name = name.rpartition(".")[0]
                if name and name != module:
                    graph[module].add(name)
    return graph


def _layer(module: str) -> str:
    """The file or folder of the package that a module belongs to, as docs/design.md writes it."""
    parts = module.split(".")
    if len(parts) == 1:
        return f"{_PACKAGE}/__init__.py"
    path = _ROOT / _PACKAGE / parts[1]
    return f"{_PACKAGE}/{parts[1]}/" if path.is_dir() else f"{_PACKAGE}/{parts[1]}.py"


def _declared() -> dict[str, list[str]]:
    """The table of layers, top layer first: what each imports."""
    text = (_ROOT / "docs" / "design.md").read_text()
    chapter = text[text.index("## Layers") :].split("\n## ")[0]
    rows = re.findall(r"^\| `(trt_rt/[^`]*)` \|[^|]*\|([^|]*)\|$", chapter, re.M)
    return {layer: re.findall(r"`([^`]*)`", imports) for layer, imports in rows}


def _short(layer: str) -> str:
    return "trt_rt" if layer.endswith("__init__.py") else layer.split("/")[1].removesuffix(".py")


GRAPH = _import_graph(_ROOT)


def test_imports_point_downwards() -> None:
    order = list(_declared())
    assert {_layer(module) for module in GRAPH} == set(order), "docs/design.md lists every layer"
    upwards = [
        f"{module} imports {imported}"
        for module, imports in GRAPH.items()
        for imported in sorted(imports)
        if order.index(_layer(imported)) < order.index(_layer(module))
    ]
    assert upwards == []


def test_the_table_tells_what_each_layer_imports() -> None:
    declared = _declared()
    order = list(declared)
    observed: dict[str, set[str]] = {layer: set() for layer in order}
    for module, imports in GRAPH.items():
        observed[_layer(module)] |= {_layer(imported) for imported in imports} - {_layer(module)}
    expected = {layer: [_short(other) for other in order if other in observed[layer]] for layer in order}
    assert declared == expected


def test_no_circle_of_files() -> None:
    try:
        order = list(graphlib.TopologicalSorter(GRAPH).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
    assert len(order) == len(GRAPH)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("top.py", "import trt_rt.low"),
        ("top.py", "from trt_rt.low import name"),
        ("top.py", "from trt_rt import low"),
        ("top.py", "from .low import name"),
        ("top.py", "from . import low as other"),
        ("top.py", "def f():\n    from trt_rt import low\n"),
        ("top.py", "if TYPE_CHECKING:\n    from trt_rt.low import name\n"),
        ("top.pyx", "from trt_rt.low cimport name"),
        ("top.pyx", "from trt_rt.low cimport (\n    first,  # a comment\n    second as third,\n)"),
        ("top.pyx", "cdef f():\n    from trt_rt import first, low\n"),
        ("top.pyx", "cimport numpy, trt_rt.low"),
        ("top.pyx", 'include "low.pxi"'),
        ("top.pxd", "from .low cimport name"),
        ("top.pxd", "from . cimport low"),
    ],
)
def test_every_way_to_import_is_seen(tmp_path: Path, file: str, source: str) -> None:
    folder = tmp_path / _PACKAGE
    folder.mkdir()
    (folder / file).write_text(textwrap.dedent(source))
    (folder / "low.py").write_text("import torch")
    assert _import_graph(tmp_path)["trt_rt.top"] == {"trt_rt.low"}
