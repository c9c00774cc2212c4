"""Calls operators through plans, or programs in files, with hostile arguments, in a process of its own.

Each case is one plan, or the same graph as the program of a file (``tests/archive/fuzzed_programs.py``). Its
network prepares some operands (strided and expanded views, conjugates, lists, numbers read from memory),
calls one operator with arguments drawn from its schema, and returns an input unchanged. The arguments are
wrong on purpose: other ranks, other dtypes, sizes up to 2**63, NaN. Whatever happens, loading a plan returns
an engine or None and a run returns True or False; loading a program raises nothing but ArchiveError.

``python -m tests.reference.operator_fuzzing plans|programs COUNT SEED [OPERATOR ...]`` runs a campaign.
"""

from __future__ import annotations

import operator
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.reference.harness import RecordingLogger
from trt_rt import reference as trt
from trt_rt._core.dlpack import tensor_from_address
from trt_rt.reference.allowed_operators import ALLOWED_OPERATORS
from trt_rt.reference.operators import NUMBER_FUNCTIONS
from trt_rt.reference.parameters import Parameter, parameters_of
from trt_rt.reference.plan_container import pack

__all__ = ["OPERATORS", "Report", "campaign", "operator_of", "values"]

OPERATORS = tuple(sorted(ALLOWED_OPERATORS | set(NUMBER_FUNCTIONS)))
"""Everything that a plan may call, but for ``operator.getitem``."""

MEMORY = 4 << 30
"""Bytes of address space of the process; PyTorch's own libraries need about one third."""

SHAPES = ((), (0,), (1,), (5,), (3, 3), (2, 3), (40, 4), (2, 0, 3), (2, 3, 4), (1, 2, 5, 5), (1, 1, 2, 3, 3))
IO_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
WEIGHT_DTYPES = (torch.float64, torch.complex64, torch.int16, torch.float8_e4m3fn)
DTYPES = (*IO_DTYPES, *WEIGHT_DTYPES)
FLOATS = (0.0, 1.0, -1.0, 0.5, 2.5, 1e-30, 1e30, 3e9, -3e9)
ODD_FLOATS = ("nan", "inf", "-inf")
SMALL_INTEGERS = (0, 1, 2, 3, 4, 5, 7, -1, -2, -5)
LARGE_INTEGERS = (
    *(64, 1000, 2**15, 2**15 + 1, 2**16, 2**31 - 1, 2**31, 2**32 + 1, 2**62, 2**63 - 1),
    *(-1000, -(2**15), -(2**31), -(2**31) - 1, -(2**62), -(2**63)),
)
WORDS = (
    *("none", "tanh", "floor", "trunc", "sum", "prod", "mean", "amax", "amin", "add", "multiply", "linear"),
    *("reflect", "replicate", "circular", "constant", "same", "valid", "ij", "xy", "fro", "nuc", "left"),
    *(
        "ortho",
        "forward",
        "backward",
        "lower",
        "higher",
        "nearest",
        "ij,jk->ik",
        "...i->...",
        "ii->i",
        "a,a->",
    ),
    *("", "x" * 10_000, "\0", "\u00df", "->", ",,,->", "i" * 100),
)


@dataclass(frozen=True)
class Report:
    """What a campaign found.

    Attributes
    ----------
    cases : int
        How many plans were tried.
    loaded, succeeded : int
        How many of them were loaded, and ran to their end.
    faults : tuple of str
        Crashes, hangs, exceptions and prints, each with the case that led to it.
    """

    cases: int
    loaded: int
    succeeded: int
    faults: tuple[str, ...]


def campaign(
    operators: Sequence[str], count: int, seed: int, *, kind: str = "plans", patience: float = 60.0
) -> Report:
    """Call each of `operators` `count` times, through "plans" or "programs".

    A process of its own runs the cases. It is started again behind a case that ends it or that takes longer
    than `patience` seconds.
    """
    cases = [(name, number) for name in operators for number in range(count)]
    faults: list[str] = []
    done = loaded = succeeded = 0
    with tempfile.TemporaryDirectory() as folder:
        progress, output = Path(folder, "progress"), Path(folder, "output")
        while done < len(cases):
            progress.write_text("")
            with open(output, "w") as file:
                worker = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "tests.reference.operator_fuzzing", "--worker", kind),
                        *(str(progress), str(count), str(seed), str(done), *operators),
                    ],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    start_new_session=True,
                )
            status = _wait(worker, progress, patience)
            lines = progress.read_text().splitlines()
            outcomes = [line.split(" ", 1) for line in lines if not line.startswith("start ")]
            loaded += sum(outcome in ("refused-by-run", "ran") for outcome, _ in outcomes)
            succeeded += sum(outcome == "ran" for outcome, _ in outcomes)
            faults += [" ".join(outcome) for outcome in outcomes if outcome[0] in ("raised", "printed")]
            done += len(outcomes)
            if status is not None:
                said = output.read_text(errors="replace")[-500:]
                if not lines:
                    raise RuntimeError(f"the process that tries cases does not start: {status}\n{said}")
                case = lines[-1].removeprefix("start ")
                faults.append(f"{status} in {case}\n{said}")
                done += 1
    return Report(done, loaded, succeeded, tuple(faults))


def _wait(worker: subprocess.Popen[bytes], progress: Path, patience: float) -> str | None:
    """Wait for the end of a worker; return how it failed, or None."""
    size, since = -1, time.monotonic()
    while True:
        try:
            code = worker.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            now = progress.stat().st_size
            if now != size:
                size, since = now, time.monotonic()
            # Importing PyTorch takes seconds on a busy machine.
            elif time.monotonic() - since > (patience if size else 10 * patience):
                worker.kill()
                worker.wait()
                return "hang"
        else:
            return None if code == 0 else f"exit status {code}"


# In the worker.


def _work(kind: str, progress: str, count: int, seed: int, first: int, operators: Sequence[str]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cases = [(name, number) for name in operators for number in range(count)]
    attempt = _attempt_of_plan if kind == "plans" else _attempt_of_program
    with open(progress, "w", buffering=1) as file:
        for name, number in cases[first:]:
            generator = random.Random(zlib.crc32(f"{name} {number} {seed}".encode()))
            header, weights, text = _case(name, generator)
            file.write(f"start {name} {number}: {text}\n")
            printed = os.fstat(1).st_size
            try:
                outcome = attempt(header, weights, generator)
            except BaseException as error:
                outcome = f"raised {type(error).__name__}: {str(error)[:300]!r}"
            sys.stdout.flush()
            if os.fstat(1).st_size != printed:
                with open("/proc/self/fd/1", "rb") as said:
                    said.seek(printed)
                    text_printed = said.read()
                # PyTorch warns once a process: of deprecated defaults, of lossy conversions.
                if not text_printed.startswith(b"[W"):
                    outcome = f"printed {text_printed[-200:]!r}"
            file.write(f"{outcome} {name} {number}: {text}\n")


def _attempt_of_program(header: Mapping[str, Any], weights: Sequence[bytes], generator: random.Random) -> str:
    from tests.archive.fuzzed_programs import attempt  # which needs this module

    return attempt(header, generator)


def _attempt_of_plan(header: dict[str, Any], weights: Sequence[bytes], generator: random.Random) -> str:
    """Load and run a plan."""
    logger = RecordingLogger()
    engine = trt.Runtime(logger).deserialize_cuda_engine(pack(header, weights))
    if engine is None:
        assert len(logger.errors) == 1, logger.errors
        return "refused-by-load"
    context = engine.create_execution_context()
    kept = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        assert name is not None
        shape = tuple(engine.get_tensor_shape(name))
        dtype = _torch_dtype(engine.get_tensor_dtype(name))
        tensor = values(shape, dtype, generator)
        kept.append(tensor)
        context.set_tensor_address(name, tensor.data_ptr())
    ran = context.execute_async_v3(0)
    assert ran is True or logger.errors
    return "ran" if ran else "refused-by-run"


def _torch_dtype(member: trt.DataType) -> torch.dtype:
    from trt_rt.reference.dtypes import TENSORRT_DTYPES

    return next(dtype for dtype, known in TENSORRT_DTYPES.items() if known is member)


def values(shape: tuple[int, ...], dtype: torch.dtype, generator: random.Random) -> torch.Tensor:
    """A tensor of values that are sometimes harmless and sometimes not."""
    made = torch.empty(torch.Size(shape).numel() + 64, dtype=torch.uint8 if dtype is torch.bool else dtype)
    made = made[: torch.Size(shape).numel()].reshape(shape)
    seed = torch.Generator().manual_seed(generator.getrandbits(32))
    harmless = torch.randint(0, 3, shape, generator=seed)
    made.copy_(harmless)
    if dtype is not torch.bool and made.numel() and generator.random() < 0.5:
        if dtype.is_floating_point:
            odd = torch.tensor(generator.choice([float("nan"), float("inf"), -1.5, 1e30, 0.3]))
        elif dtype in (torch.int64, torch.int32, torch.int16):
            limits = torch.iinfo(dtype)
            odd = torch.tensor(generator.choice([limits.min, limits.max, -1, 10**4, 5, -7]))
        else:
            odd = torch.tensor(generator.choice([0, 1, 5, 100]))
        share = generator.choice([0.1, 0.5, 1.0])
        chosen = torch.rand(shape, generator=seed) < share
        made.copy_(torch.where(chosen, odd, harmless.to(odd.dtype)))
    return made.view(torch.bool) if dtype is torch.bool else made


def _case(name: str, generator: random.Random) -> tuple[dict[str, Any], list[bytes], str]:
    """A plan that calls `name`, and the call in words."""
    operands = _Operands(generator)
    if name.startswith("aten."):
        args, kwargs = _arguments(parameters_of(operator_of(name)._schema), operands, generator)
    else:
        args = [operands.number() for _ in range(generator.randint(1, 3))]
        kwargs = {}
    # A layer that claims to depend on data runs without having been inferred.
    operands.layer(name, args, kwargs, generator.random() < 0.5)
    return operands.header(), operands.weight_bytes, f"{args} {kwargs} {operands.describe()}"


def operator_of(name: str) -> Any:
    """Return the operator of PyTorch of this name."""
    return operator.attrgetter(name)(torch.ops)


def _arguments(
    parameters: Sequence[Parameter], operands: _Operands, generator: random.Random
) -> tuple[list[Any], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    last = max(
        (i for i, parameter in enumerate(parameters) if parameter.is_required and not parameter.is_keyword),
        default=-1,
    )
    positional = sum(not parameter.is_keyword for parameter in parameters)
    count = generator.randint(last + 1, positional)
    for index, parameter in enumerate(parameters):
        if parameter.is_keyword or index >= count:
            if parameter.is_required or generator.random() < 0.3:
                kwargs[parameter.name] = operands.argument(parameter)
        else:
            args.append(operands.argument(parameter))
    return args, kwargs


class _Operands:
    """The values of one plan, and arguments made of them."""

    def __init__(self, generator: random.Random) -> None:
        self._generator = generator
        # Most cases use few shapes and dtypes: operands that fit each other reach further into a kernel.
        dtypes = generator.sample(IO_DTYPES, generator.choice([1, 1, 2, 3]))
        shapes = generator.sample(SHAPES, generator.choice([1, 1, 2, 3, 4]))
        inputs = [(dtype, shape) for dtype in dtypes for shape in shapes]
        self._inputs = [*inputs, (torch.int64, ()), (torch.int64, generator.choice(shapes))]
        weights = [(generator.choice(DTYPES), generator.choice(shapes)) for _ in range(2)]
        self._weights = weights
        self.weight_bytes = [_bytes_of(values(shape, dtype, generator)) for dtype, shape in weights]
        self._leaves = len(self._inputs) + len(weights)
        self._layers: list[dict[str, Any]] = []
        self._tensors = list(range(self._leaves))
        self._numbers: list[int] = []
        self._prepare()

    def _prepare(self) -> None:
        """Layers that make operands of unusual kinds."""
        generator = self._generator
        for _ in range(generator.randint(0, 3)):
            tensor = generator.randrange(self._leaves)
            rank = len(self._shape(tensor))
            kind = generator.choice(["transpose", "expand", "slice", "number", "size", "complex"])
            if kind == "transpose" and rank > 1:
                self._tensors.append(self.layer("aten.transpose.int", [_value(tensor), 0, -1], {}, False))
            elif kind == "expand":
                shape = [generator.choice([2, 3, 1000]), *self._shape(tensor)]
                self._tensors.append(self.layer("aten.expand.default", [_value(tensor), shape], {}, False))
            elif kind == "slice" and rank:
                args = [_value(tensor), 0, 0, 2**63 - 1, 2]
                self._tensors.append(self.layer("aten.slice.Tensor", args, {}, False))
            elif kind == "number":
                args = [_value(len(self._inputs) - 2)]
                self._numbers.append(self.layer("aten.item.default", args, {}, True))
            elif kind == "size" and rank:
                self._numbers.append(self.layer("aten.sym_size.int", [_value(tensor), 0], {}, False))
            elif kind == "complex":
                args = [_value(tensor)]
                self._tensors.append(
                    self.layer("aten._to_copy.default", args, {"dtype": {"dtype": "complex64"}}, False)
                )
                self._tensors.append(self.layer("aten._conj.default", [_value(self._tensors[-1])], {}, False))

    def layer(self, operator: str, args: list[Any], kwargs: dict[str, Any], data_dependent: bool) -> int:
        self._layers.append(
            {
                "name": f"layer{len(self._layers)}",
                "operator": operator,
                "args": args,
                "kwargs": kwargs,
                "result": None,
                "data_dependent": data_dependent,
            }
        )
        return self._leaves + len(self._layers) - 1

    def argument(self, parameter: Parameter) -> Any:
        generator = self._generator
        if parameter.is_optional and generator.random() < 0.3:
            return None
        if not parameter.is_list or generator.random() < 0.03:
            return self._one(parameter)
        lengths = {"int": (0, 1, 1, 2, 2, 3, 4, 9), "Tensor": (0, 1, 2, 3, 4, 16)}
        length = generator.choice(lengths.get(parameter.type, (0, 1, 2, 3)))
        if parameter.type == "int" and generator.random() < 0.4:
            return list(generator.choice(SHAPES))
        if parameter.type == "int" and generator.random() < 0.4:
            return [self._one(parameter)] * length
        return [
            None if parameter.has_optional_elements and generator.random() < 0.3 else self._one(parameter)
            for _ in range(length)
        ]

    def number(self) -> Any:
        generator = self._generator
        kind = generator.random()
        if kind < 0.3:
            return self._integer()
        if kind < 0.6:
            return self._float()
        return generator.choice([True, "x", None, [1], _value(0), self._integer(), self._float()])

    def _one(self, parameter: Parameter) -> Any:
        generator = self._generator
        if generator.random() < 0.02:
            # Of another type than declared.
            return generator.choice([None, 6, -1, 2**40, 0.5, "x", [], [[1]], True, {"dtype": "float32"}])
        if parameter.type == "Tensor":
            return self._float() if generator.random() < 0.03 else _value(generator.choice(self._tensors))
        if parameter.type == "int":
            return self._integer()
        if parameter.type == "float":
            return self._float()
        if parameter.type == "number":
            kind = generator.random()
            return self._integer() if kind < 0.4 else True if kind < 0.5 else self._float()
        if parameter.type == "bool":
            return generator.random() < 0.5
        if parameter.type == "str":
            return generator.choice(WORDS)
        if parameter.type == "ScalarType":
            return {"dtype": str(generator.choice(DTYPES)).removeprefix("torch.")}
        if parameter.type == "Layout":
            return {"layout": "strided"}
        if parameter.type == "MemoryFormat":
            return {
                "memory_format": generator.choice(
                    ["contiguous_format", "preserve_format", "channels_last", "channels_last_3d"]
                )
            }
        if parameter.type == "Device":
            return {"device": generator.choice(["engine", "host", "operands"])}
        return None

    def _integer(self) -> Any:
        generator = self._generator
        if self._numbers and generator.random() < 0.1:
            return _value(generator.choice(self._numbers))
        return generator.choice(SMALL_INTEGERS if generator.random() < 0.8 else LARGE_INTEGERS)

    def _float(self) -> Any:
        generator = self._generator
        if generator.random() < 0.2:
            return {"float": generator.choice(ODD_FLOATS)}
        return generator.choice(FLOATS)

    def _shape(self, tensor: int) -> tuple[int, ...]:
        return [*self._inputs, *self._weights][tensor][1]

    def describe(self) -> str:
        tensors = [f"{dtype}{list(shape)}".removeprefix("torch.") for dtype, shape in self._inputs]
        weights = [f"{dtype}{list(shape)}".removeprefix("torch.") for dtype, shape in self._weights]
        layers = [f"{layer['operator']}{layer['args']}" for layer in self._layers[:-1]]
        return f"inputs {tensors} weights {weights} layers {layers}"

    def header(self) -> dict[str, Any]:
        inputs = [
            {
                "name": f"x{index}",
                "dtype": str(dtype).removeprefix("torch."),
                "shape": list(shape),
                "location": "device",
            }
            for index, (dtype, shape) in enumerate(self._inputs)
        ]
        weights, offset = [], 0
        for (dtype, shape), content in zip(self._weights, self.weight_bytes, strict=True):
            weights.append(
                {
                    "dtype": str(dtype).removeprefix("torch."),
                    "shape": list(shape),
                    "offset": offset,
                    "name": None,
                }
            )
            offset += -(-len(content) // 64) * 64
        dtype, shape = self._inputs[0]
        return {
            "name": "",
            "device": "cpu",
            "alignment": 64,
            "streamable_weights": False,
            "refittable": False,
            "torch": "",
            "default_dtype": "float32",
            "inputs": inputs,
            "outputs": [
                {
                    "name": "y",
                    "dtype": str(dtype).removeprefix("torch."),
                    "shape": list(shape),
                    "aliased_input": None,
                    "data_dependent": False,
                    "known_dims": list(shape),
                }
            ],
            "relations": [],
            "profiles": [
                {
                    "shapes": [[list(shape)] * 3 for _, shape in self._inputs],
                    "values": [None] * len(self._inputs),
                    "scratch_bytes": 0,
                }
            ],
            "weights": weights,
            "graph": {"nodes": self._layers, "outputs": [0]},
        }


def _value(index: int) -> dict[str, int]:
    return {"value": index}


def _bytes_of(tensor: torch.Tensor) -> bytes:
    if not tensor.numel():
        return b""
    flat = tensor.contiguous().view(-1)
    raw = tensor_from_address(flat.data_ptr(), (flat.nbytes,), torch.uint8, torch.device("cpu"))
    return bytes(raw.tolist())


def _groups(operators: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(operators), size):
        yield operators[start : start + size]


def main(arguments: Sequence[str]) -> int:
    if arguments[0] == "--worker":
        _, kind, progress, count, seed, first, *operators = arguments
        _work(kind, progress, int(count), int(seed), int(first), operators)
        return 0
    kind, count, seed, *operators = arguments
    known: Sequence[str] = OPERATORS
    if kind == "programs":
        from tests.archive.fuzzed_programs import OPERATORS as known  # which needs this module
    cases = loaded = succeeded = faults = 0
    for group in _groups(operators or known, 40):
        report = campaign(group, int(count), int(seed), kind=kind)
        cases, loaded = cases + report.cases, loaded + report.loaded
        succeeded, faults = succeeded + report.succeeded, faults + len(report.faults)
        for fault in report.faults:
            print(fault, flush=True)
        print(f"{cases} cases, {loaded} loaded, {succeeded} ran, {faults} faults", flush=True)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
