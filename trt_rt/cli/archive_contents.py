"""The contents of a program's file, as ``trt-rt inspect`` shows them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_rt._core.dtype_name import dtype_name
from trt_rt.cli.command import Result, print_table

if TYPE_CHECKING:
    from trt_rt.archive.inspection import ArchiveContents, ScriptContents
    from trt_rt.operator import TensorMeta

__all__ = ["describe_archive"]


def describe_archive(path: Path) -> Result:
    """Return what a file holds; nothing of it is run."""
    from trt_rt.archive.inspection import ScriptContents, inspect_archive

    contents = inspect_archive(path)
    if isinstance(contents, ScriptContents):
        return _describe_script(path, contents)
    manifest = contents.manifest
    found: dict[str, Any] = {
        "file": str(path),
        "kind": _kind(contents),
        "bytes": contents.size,
        "signed": contents.is_signed,
        "made_with": manifest.made_with if manifest else {},
        "backend": contents.engines[0].meta.backend if contents.engines else "",
        "tensorrt_version": manifest.tensorrt_version if manifest else "",
        "compute_capability": manifest.compute_capability if manifest else "",
        "gpu": manifest.gpu if manifest else "",
        "platform": manifest.platform if manifest else "",
        "engines": [
            {
                "name": engine.name,
                "sha256": engine.meta.sha256,
                "inputs": list(map(_tensor, engine.meta.inputs)),
                "outputs": list(map(_tensor, engine.meta.outputs)),
            }
            for engine in contents.engines
        ],
        "operators": contents.operators,
        "records": contents.records,
    }
    return Result(found, lambda: _print(found))


def _kind(contents: ArchiveContents) -> str:
    if contents.manifest is not None:
        return "a program"
    writer = "Torch-TensorRT" if contents.is_of_torch_tensorrt else "torch.export.save"
    return f"a program that {writer} wrote"


def _describe_script(path: Path, contents: ScriptContents) -> Result:
    from trt_rt.backend import identify_plan

    kinds = [identify_plan(engine.plan) for engine in contents.engines]
    found: dict[str, Any] = {
        "file": str(path),
        "kind": "a TorchScript program of Torch-TensorRT",
        "bytes": contents.size,
        "engines": [
            {
                "name": engine.name,
                "plan": kind.description,
                "version": kind.version_text,
                "bytes": len(engine.plan),
                "compute_capability": engine.compute_capability,
                "platform": engine.platform,
                "inputs": list(engine.inputs),
                "outputs": list(engine.outputs),
            }
            for engine, kind in zip(contents.engines, kinds, strict=True)
        ],
        "operators": contents.operators,
        "records": contents.records,
    }
    return Result(found, lambda: _print_script(found))


def _print_script(found: dict[str, Any]) -> None:
    operators = ", ".join(f"{n} {name}" for name, n in found["operators"].items())
    rows = [
        ("kind", found["kind"]),
        ("size", f"{found['bytes']:,} bytes"),
        ("operators", operators or "none"),
    ]
    print_table(found["file"], ("what", "found"), rows)
    columns = ("name", "plan", "bytes", "made for", "inputs", "outputs")
    engines = [
        (
            each["name"],
            f"{each['plan']} {each['version']}".strip(),
            f"{each['bytes']:,}",
            f"{each['platform']} {each['compute_capability']}".strip(),
            ", ".join(each["inputs"]),
            ", ".join(each["outputs"]),
        )
        for each in found["engines"]
    ]
    print_table("Engines", columns, engines)
    records = [(name, f"{size:,}") for name, size in found["records"].items()]
    print_table("Records", ("name", "bytes"), records)


def _tensor(tensor: TensorMeta) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": dtype_name(tensor.dtype),
        "shape": list(tensor.shape),
    }


def _print(found: dict[str, Any]) -> None:
    rows = [("kind", found["kind"]), ("size", f"{found['bytes']:,} bytes")]
    rows.append(("signed", "yes; trt-rt verify checks it" if found["signed"] else "no"))
    if found["backend"]:
        rows.append(("engines for", f"{found['backend']} {found['tensorrt_version']}".strip()))
    made = [f"{name} {version}" for name, version in found["made_with"].items()]
    made += [found["platform"]] if found["platform"] else []
    if found["compute_capability"]:
        made.append(f"{found['gpu'] or 'a GPU'} of compute capability {found['compute_capability']}")
    if made:
        rows.append(("made with", ", ".join(made)))
    rows.append(("operators", ", ".join(f"{n} {name}" for name, n in found["operators"].items()) or "none"))
    print_table(found["file"], ("what", "found"), rows)
    engines = [(each["name"], _shapes(each["inputs"]), _shapes(each["outputs"])) for each in found["engines"]]
    if engines:
        print_table("Engines", ("name", "inputs", "outputs"), engines)
    records = [(name, f"{size:,}") for name, size in found["records"].items()]
    print_table("Records", ("name", "bytes"), records)


def _shapes(tensors: list[dict[str, Any]]) -> str:
    return ", ".join(map(_shape, tensors))


def _shape(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {tensor['dtype']} {'x'.join(map(str, tensor['shape'])) or 'scalar'}"
