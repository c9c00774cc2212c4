"""The target of a command: a plan, a saved program, an ONNX file, or a callable that returns a model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_rt.cli.model_source import model_options, refuse_exit
from trt_rt.errors import SettingError

if TYPE_CHECKING:
    from trt_rt.report import Target, Workload
    from trt_rt.report.shapes import Shapes

__all__ = ["add_target_arguments", "integers", "opened_target"]


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `opened_target` takes."""
    parser.add_argument(
        "target", metavar="TARGET", help="a plan, a saved program (.pt2), an ONNX file, or module:callable"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: the engine's)")
    parser.add_argument("--backend", default="auto", help="whose engine runs or is built")
    parser.add_argument(
        "--shapes",
        action="append",
        default=[],
        metavar="NAME:SIZExSIZE[,NAME:...]",
        help="sizes of inputs, and values of shape tensors; again for another measurement",
    )
    parser.add_argument(
        "--batch",
        type=integers,
        default=[],
        metavar="N[,N...]",
        help="batch sizes; the other sizes are those that the engine was optimized for",
    )


def integers(text: str) -> list[int]:
    """Parse ``N,N,...``; for ``type=`` of an argument."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not N or N,N,...") from None
    if any(value < 0 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} has a negative number")
    return values


@contextmanager
def opened_target(arguments: argparse.Namespace) -> Iterator[tuple[Target, list[Workload]]]:
    """Open the target of a command, and make the arguments of its calls.

    Parameters
    ----------
    arguments : argparse.Namespace
        With those of `add_target_arguments`. Without ``--shapes`` and ``--batch``: what the engine was
        optimized for.

    Yields
    ------
    tuple of Target and list of Workload
        The target is open within the context.

    Raises
    ------
    TRTError
        It cannot be opened, or it does not run with these shapes.
    OSError
        The file cannot be read.
    """
    from trt_rt.report.shapes import parse_shapes

    text, device, backend = arguments.target, arguments.device, arguments.backend
    batches: list[int] = arguments.batch
    shapes: list[Shapes] = [parse_shapes(each) for each in arguments.shapes]
    path = Path(text)
    if text.endswith(".onnx"):
        with _onnx_target(path, device, backend) as target:
            yield target, _workloads(target, shapes, batches)
    elif text.endswith(".pt2") and path.exists():
        yield _archive_target(path, device, backend, shapes, batches)
    elif path.exists():
        with _plan_target(path, device, backend) as target:
            yield target, _workloads(target, shapes, batches)
    else:
        if shapes or batches:
            raise SettingError(
                f"--shapes and --batch are for plans, saved programs and ONNX files: {text} gives its own "
                "example inputs."
            )
        yield _model_target(text, device, backend)


@contextmanager
def _plan_target(path: Path, device: str | None, backend: str) -> Iterator[Any]:
    import trt_rt
    from trt_rt.report import EngineTarget

    with trt_rt.Engine.load(path, device=device, backend=backend) as engine:
        yield EngineTarget(engine, path.name)


def _archive_target(
    path: Path, device: str | None, backend: str, shapes: list[Shapes], batches: list[int]
) -> tuple[Target, list[Workload]]:
    import torch

    import trt_rt
    from trt_rt.report import ProgramTarget, Workload
    from trt_rt.report.shapes import label

    program = trt_rt.load(path, device=device, backend=backend)
    found = [program.example_arguments(sizes) for sizes in shapes]
    found += [program.example_arguments(batch=batch) for batch in batches]
    workloads = [
        Workload(label(sizes) or "no inputs", args, kwargs)
        for sizes, args, kwargs in found or [program.example_arguments()]
    ]
    tensors = torch.utils._pytree.tree_leaves((workloads[0].arguments, dict(workloads[0].keywords)))
    devices = [leaf.device for leaf in tensors if isinstance(leaf, torch.Tensor)]
    return ProgramTarget(program, path.name, devices[0] if devices else torch.device("cpu")), workloads


@contextmanager
def _onnx_target(path: Path, device: str | None, backend: str) -> Iterator[Any]:
    import trt_rt
    from trt_rt.report import EngineTarget
    from trt_rt.report.peers import onnx_runtime

    plan = trt_rt.build(model_options(str(path))["model"], backend=backend)
    with trt_rt.Engine.from_bytes(plan, device=device, name=path.stem) as engine:
        yield EngineTarget(
            engine, path.name, [onnx_runtime(path, tuple(tensor.name for tensor in engine.inputs))]
        )


def _workloads(target: Any, shapes: list[Shapes], batches: list[int]) -> list[Workload]:
    from trt_rt.report.shapes import shapes_of_batch

    (engine,) = target.engines()
    asked = [*shapes, *(shapes_of_batch(engine.inputs, batch) for batch in batches)]
    return [target.workload(sizes) for sizes in asked or [{}]]


def _model_target(text: str, device: str | None, backend: str) -> tuple[Target, list[Workload]]:
    import torch

    import trt_rt
    from trt_rt.report import ProgramTarget, Workload
    from trt_rt.report.peers import eager, torch_compile, torch_tensorrt

    with refuse_exit(text):
        options = model_options(text)
        model = options.pop("model")
        arguments = tuple(options.get("inputs") or options.get("arg_inputs") or ())
        keywords = dict(options.get("kwarg_inputs") or {})
        if not isinstance(model, torch.nn.Module):
            raise SettingError(f"{text} gives a {type(model).__name__}, and bench compares modules.")
        if device is not None:
            model = model.to(device)
            arguments, keywords = _moved((arguments, keywords), device)
        options |= {"arg_inputs": arguments, "kwarg_inputs": keywords}
        options.pop("inputs", None)
        options.setdefault("backend", backend)
        program = trt_rt.compile(model, **options)
    tensors = [
        leaf for leaf in torch.utils._pytree.tree_leaves((arguments, keywords)) if hasattr(leaf, "device")
    ]
    where = tensors[0].device if tensors else torch.device(device or "cpu")
    peers = (eager(model), torch_compile(model), torch_tensorrt(model))
    return ProgramTarget(program, text, where, peers), [Workload("its inputs", arguments, keywords)]


def _moved(values: Any, device: str) -> Any:
    import torch

    return torch.utils._pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), values)
