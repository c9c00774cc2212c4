"""TorchScript files as Torch-TensorRT writes them, with plans of the reference backend.

PyTorch's own serializer writes them, for a class of TorchScript that has the pickled state of the C++ class
of Torch-TensorRT. Then the class and its call get Torch-TensorRT's names, as files of its version 2.11 have.
"""

from __future__ import annotations

import base64
import warnings
import zipfile
from pathlib import Path

import torch

import trt_rt

__all__ = ["ENGINE_NAME", "Example", "engine_fields", "write_torchscript"]

ENGINE_NAME = "__torch__.torch.classes.tensorrt.Engine"
_OPERATOR = "ops.tensorrt.execute_engine"


class Engine:
    """The class that becomes Torch-TensorRT's; results stand for the engine's while the module is traced."""

    def __init__(self, fields: list[str], outputs: list[torch.Tensor]) -> None:
        self.fields = fields
        self.outputs = outputs

    def run(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return self.outputs

    def __getstate__(self) -> list[str]:
        return self.fields

    def __setstate__(self, fields: list[str]) -> None:
        self.fields = fields
        self.outputs = torch.jit.annotate(list[torch.Tensor], [])


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # every function of torch.jit is deprecated
    torch.jit.script(Engine)


def engine_fields(plan: bytes, inputs: str, outputs: str) -> list[str]:
    """The strings of Torch-TensorRT 2.11."""
    encoded = base64.b64encode(plan).decode()
    return [
        "8",
        "part_engine",
        "0%9%0%0%GPU",
        encoded,
        inputs,
        outputs,
        "0",
        "gAN9Lg==",
        "linux_x86_64",
        "0",
        "0",
    ]


class Part(torch.nn.Module):
    """A module over one engine, like Torch-TensorRT's."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (y,) = self.engine.run([x])
        return y


class Two(torch.nn.Module):
    """A module over an engine with two inputs and two outputs."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = self.engine.run([a, b])
        return first, second


class Middle(torch.nn.Module):
    """What PyTorch runs between two engines."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(0.5, 2, 8))
        self.register_buffer("offset", torch.full((8,), 3.0))

    def forward(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.nn.functional.leaky_relu(y * self.weight, 0.25) + self.offset
        return z.reshape(z.size(0), -1).to(torch.float32), (z - 1.5).view(-1, 8)


class Network(torch.nn.Module):
    """What the first engine computes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x))


class SumAndProduct(torch.nn.Module):
    """What the second engine computes."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, a * b


class Example(torch.nn.Module):
    """An engine, operators of PyTorch, and another engine; before the first one more operator if asked for.

    Parameters
    ----------
    before : bool
        Whether an operator of PyTorch is the first to take the input.
    """

    def __init__(self, *, before: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before = before
        self.network, self.middle, self.last = Network().eval(), Middle().eval(), SumAndProduct()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.network(x * 2 if self.before else x)
        found: tuple[torch.Tensor, torch.Tensor] = self.last(*self.middle(y))
        return found

    def saved(self, path: Path) -> Path:
        """Save it as Torch-TensorRT does after it has compiled two parts of it."""
        batch = torch.export.Dim("batch", min=1, max=9)
        x, y = torch.zeros(3, 4), torch.zeros(3, 8)
        first = trt_rt.build(self.network, (x,), dynamic_shapes=({0: batch},), backend="reference")
        last = trt_rt.build(self.last, (y, y + 1), dynamic_shapes=({0: batch},) * 2, backend="reference")
        parts = _Parts(first, last, self.middle, before=self.before)
        return write_torchscript(parts, (x,), path)


class _Parts(torch.nn.Module):
    def __init__(self, first: bytes, last: bytes, middle: torch.nn.Module, *, before: bool) -> None:
        super().__init__()
        y = [torch.zeros(3, 8), torch.ones(3, 8)]
        self.before = before
        self._run_on_acc_0 = _scripted(Part(Engine(engine_fields(first, "x", "output0"), y[:1])))
        self._run_on_gpu_1 = middle
        self._run_on_acc_2 = _scripted(Two(Engine(engine_fields(last, "a%b", "output0%output1"), y)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = self._run_on_gpu_1(self._run_on_acc_0(x * 2 if self.before else x))
        first, second = self._run_on_acc_2(a, b)
        return first, second


def _scripted(module: torch.nn.Module) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted: torch.nn.Module = torch.jit.script(module)
        return scripted


def write_torchscript(
    module: torch.nn.Module, args: tuple[torch.Tensor, ...], path: Path, *, traced: bool = True
) -> Path:
    """Trace or script a module with engines, save it, and give class and operator Torch-TensorRT's names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(module, args, check_trace=False) if traced else torch.jit.script(module)
        torch.jit.save(script, path)
    _rename(path)
    return path


def _rename(path: Path) -> None:
    """Give the class and its call Torch-TensorRT's names, in place."""
    with zipfile.ZipFile(path) as file:
        records = {info.filename: file.read(info) for info in file.infolist()}
    ours = f"__torch__.{__name__}"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in records.items():
            if name.endswith("data.pkl"):
                content = content.replace(
                    f"c{ours}\nEngine\n".encode(), b"c__torch__.torch.classes.tensorrt\nEngine\n"
                )
            is_code = "/code/" in name and name.endswith(".py")
            if is_code:
                text = content.decode().replace(f"{ours}.Engine", ENGINE_NAME)
                text = text.replace("(engine).run(", f"{_OPERATOR}(").replace("], )", "], engine)")
                content = text.encode()
            file.writestr(name, content, zipfile.ZIP_DEFLATED if is_code else zipfile.ZIP_STORED)
