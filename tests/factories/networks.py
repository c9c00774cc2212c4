"""The networks behind the kinds of engine, as PyTorch functions: what is built and what is expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Network", "network"]

Sizes = tuple[Sequence[int], Sequence[int], Sequence[int]]

_IDENTITY = "identity_"
_LARGEST_DIMENSION = 2**31 - 1


@dataclass(frozen=True)
class Network:
    """A network, and how an engine of it is called.

    Attributes
    ----------
    function : callable
        From input tensors to a tensor or a tuple of tensors, in eager PyTorch.
    inputs, outputs : tuple of str
        Names, in order.
    example : callable
        ``example(n, device)`` gives inputs of batch n with random values.
    profiles : sequence of mapping
        For each input with dynamic dimensions (min, opt, max) shapes, for each shape tensor values.
    shape_inputs : tuple of str
        Inputs whose values an engine reads in host memory.
    aliases : mapping
        Of outputs to the inputs in whose memory they lie.
    weight : torch.Tensor or None
        Handed to `function` as keyword ``weight``.
    """

    function: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: Callable[[int, torch.device], tuple[torch.Tensor, ...]]
    profiles: Sequence[Mapping[str, Sizes]] = field(default=({},))
    shape_inputs: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    weight: torch.Tensor | None = None

    def expected(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What an engine must return for `inputs`."""
        keywords = {} if self.weight is None else {"weight": self.weight.to(inputs[0].device)}
        with torch.no_grad():
            result = self.function(*inputs, **keywords)
        return result if isinstance(result, tuple) else (result,)

    def module(self) -> torch.nn.Module:
        """The network as a module that can be exported."""
        return _Module(self.function, self.weight)

    def dynamic_shapes(self) -> tuple[Any, ...] | None:
        """As torch.export takes them; the first dimension of an input with a profile is the batch."""
        batches: list[tuple[int, int]] = [
            (ranges[name][0][0], ranges[name][2][0])
            for ranges in self.profiles
            for name in self.inputs
            if name in ranges and name not in self.shape_inputs
        ]
        if not batches:
            return None
        low, high = min(batch for batch, _ in batches), max(batch for _, batch in batches)
        dimension = torch.export.Dim("batch", min=low, max=high)
        named = set().union(*self.profiles) - set(self.shape_inputs)
        return tuple({0: dimension} if name in named else None for name in self.inputs)


class _Module(torch.nn.Module):
    def __init__(self, function: Callable[..., Any], weight: torch.Tensor | None) -> None:
        super().__init__()
        self.function = function
        self.weight = None if weight is None else torch.nn.Parameter(weight)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs) if self.weight is None else self.function(*inputs, weight=self.weight)


def network(kind: str, device: str) -> Network | None:
    """The network of a kind; None if there is no such kind.

    Parameters
    ----------
    kind : str
        As in the list of `tests.factories`.
    device : {"cpu", "cuda"}
        Where the engine will run.
    """
    if kind.startswith(_IDENTITY):
        dtype = getattr(torch, kind.removeprefix(_IDENTITY))
        return _batched(lambda x: x.clone(), "x", width=6, dtype=dtype)
    if kind == "slow":
        return _batched(_slow(4096 if device == "cuda" else 64), "x")
    return _NETWORKS.get(kind)


def _batched(
    function: Callable[..., Any],
    *inputs: str,
    outputs: tuple[str, ...] = ("y",),
    width: int = 4,
    dtype: torch.dtype = torch.float32,
    smallest: int = 1,
) -> Network:
    sizes: Sizes = ((smallest, width), (4, width), (32, width))
    return Network(
        function,
        inputs,
        outputs,
        lambda n, device: tuple(_random((n, width), dtype, device) for _ in inputs),
        profiles=(dict.fromkeys(inputs, sizes),),
    )


def _random(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if dtype is torch.bool:
        return torch.rand(shape, device=device) < 0.5
    if dtype.is_floating_point:
        return torch.randn(shape, device=device).to(dtype)
    limits = torch.iinfo(dtype)
    return torch.randint(max(limits.min, -(2**40)), min(limits.max, 2**40), shape, device=device, dtype=dtype)


def _relu(x: torch.Tensor) -> torch.Tensor:
    return (torch.relu(x.float()) * 2 + 1).to(x.dtype)


def _add_one(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def _four_relus(
    x0: torch.Tensor, x1: torch.Tensor, x2: torch.Tensor, x3: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    return torch.relu(x0), torch.relu(x1), torch.relu(x2), torch.relu(x3)


def _repeat(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    count = s.item()
    torch._check(count >= 1)
    torch._check(count <= 9)
    return x[torch.arange(count, device=x.device) % 4]


def _fill(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    rows, columns = s[0].item(), s[1].item()
    for size in (rows, columns):
        torch._check(size >= 1)
        torch._check(size <= _LARGEST_DIMENSION)
    return x.expand(rows, columns)


def _slow(size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def function(x: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(size, size, device=x.device)
        return x + 1 + (zeros @ zeros)[0, 0]

    return function


def _one_or_none(x: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """x + 1 if any of `chosen` is true; if none is, an engine refuses to run."""
    found = torch.nonzero(chosen)
    torch._check(found.shape[0] >= 1)
    return x + 1 + found.narrow(0, 0, 1)[:, :1].to(x.dtype) * 0


def _repeat_network(dtype: torch.dtype) -> Network:
    return Network(
        _repeat,
        ("x", "s"),
        ("y",),
        lambda n, device: (torch.randn(4, device=device), torch.tensor([min(n, 9)], dtype=dtype)),
        profiles=({"s": ((1,), (4,), (9,))},),
        shape_inputs=("s",),
    )


_NETWORKS = {
    "relu": _batched(_relu, "x", width=7),
    "half": _batched(_relu, "x", width=7, dtype=torch.float16),
    "two": _batched(lambda a, b: (a + b, b + 1), "a", "b", outputs=("s", "t"), width=3),
    "many": _batched(_four_relus, "x0", "x1", "x2", "x3", outputs=("y0", "y1", "y2", "y3"), width=64),
    "nonzero": Network(
        torch.nonzero,
        ("x",),
        ("i",),
        lambda n, device: (torch.randn(n, 5, device=device) * (torch.rand(n, 5, device=device) < 0.5),),
        profiles=({"x": ((1, 5), (4, 5), (32, 5))},),
    ),
    "shape_tensor": _repeat_network(torch.int64),
    "shape_tensor32": _repeat_network(torch.int32),
    "streaming": Network(
        lambda x, weight: x + weight[:1],
        ("x",),
        ("y",),
        lambda n, device: (torch.randn(n, 4, device=device),),
        profiles=({"x": ((1, 4), (4, 4), (32, 4))},),
        weight=torch.ones(1 << 19, 4),
    ),
    "aliased": Network(
        lambda cache, x: cache + x,
        ("cache", "x"),
        ("cache_out",),
        lambda n, device: (torch.randn(8, 4, device=device), torch.randn(8, 4, device=device)),
        aliases={"cache_out": "cache"},
    ),
    "profiles": Network(
        _add_one,
        ("x",),
        ("y",),
        lambda n, device: (torch.randn(n, 4, device=device),),
        profiles=({"x": ((1, 4), (2, 4), (4, 4))}, {"x": ((5, 4), (8, 4), (32, 4))}),
    ),
    "empty": _batched(_add_one, "x", smallest=0),
    "scalar": Network(_add_one, ("x",), ("y",), lambda n, device: (torch.randn((), device=device),)),
    "static": Network(_add_one, ("x",), ("y",), lambda n, device: (torch.randn(3, 4, device=device),)),
    "no_inputs": Network(lambda: torch.arange(12.0).reshape(3, 4) * 2, (), ("y",), lambda n, device: ()),
    "no_outputs": Network(lambda x: (), ("x",), (), lambda n, device: (torch.randn(3, 4, device=device),)),
    "fails": _batched(lambda x: _one_or_none(x, x != x), "x"),
    "fails_if_negative": Network(
        lambda x: _one_or_none(x, x[:1, :1] >= 0),
        ("x",),
        ("y",),
        lambda n, device: (torch.rand(n, 4, device=device),),
        profiles=({"x": ((1, 4), (4, 4), (32, 4))},),
    ),
    "huge": Network(
        _fill,
        ("x", "s"),
        ("y",),
        lambda n, device: (torch.randn(1, device=device), torch.tensor([n, 2])),
        profiles=({"s": ((1, 1), (4, 2), (_LARGEST_DIMENSION, _LARGEST_DIMENSION))},),
        shape_inputs=("s",),
    ),
    "names": _batched(
        lambda a, b: (a - b, b - a),
        "a b:0/%s{}[]\n",
        "ŝ\"'\\;$(x) \N{SNOWMAN}\t",
        outputs=("1.out put", "{out!r}%d\N{SNOWMAN}"),
    ),
}
