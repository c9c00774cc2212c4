"""Programs that are hard to divide, each small: what a compiler of models gets wrong first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

__all__ = ["PROGRAMS", "HardProgram"]


@dataclass(frozen=True)
class HardProgram:
    """A model and how it is called.

    Attributes
    ----------
    make : callable
        Returns the model.
    calls : callable
        Returns the example call and, after that, other calls: (args, kwargs) each.
    dynamic_shapes : object
        As torch.export takes it.
    in_pytorch : tuple of str
        Operators that must stay in PyTorch, and no other that computes does.
    engines : int
        How many engines there are.
    """

    make: Callable[[], nn.Module]
    calls: Callable[[], list[tuple[tuple[Any, ...], dict[str, Any]]]]
    dynamic_shapes: Any = None
    in_pytorch: tuple[str, ...] = ()
    engines: int = 1


def _one(*shape: int) -> Callable[[], list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    return lambda: [((torch.randn(shape),), {}) for _ in range(3)]


def _batches(*shape: int) -> Callable[[], list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    return lambda: [((torch.randn(batch, *shape),), {}) for batch in (3, 1, 5, 8)]


_BATCH = torch.export.Dim("batch", min=1, max=8)
_DYNAMIC = ({0: _BATCH},)


class InPlace(nn.Module):
    """Updates a value of its own in place, through a view of it too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y.add_(1)
        y[:, 0] = 5
        y.view(-1)[1:3].mul_(3)
        return y.relu_()


class WritesToInput(nn.Module):
    """Changes its argument, which the caller sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2).add_(1)
        return (x * x).sum(1)


class Cache(nn.Module):
    """Writes a row into a buffer at every call, and reads all of it, as a KV cache does."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 4)
        self.register_buffer("cache", torch.zeros(6, 4))

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        key = torch.tanh(self.project(x))
        self.cache.index_copy_(0, position, key)
        return torch.softmax(key @ self.cache.T, dim=-1) @ self.cache


def _cache_calls() -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((torch.randn(1, 4), torch.tensor([position])), {}) for position in (0, 1, 2, 1)]


class Counter(nn.Module):
    """Returns a buffer that it changes: its value of one call must not show in a later one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.count.add_(x.sum(0).abs())
        return (x * self.count + 1).relu() * 2, self.count * 2 + 1


class TrainModeNorm(nn.Module):
    """Batch norm in training mode: running statistics are written at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.linear(x))) + 1


class Branch(nn.Module):
    """torch.cond between two parts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x * 2 + 1) * 3
        y = torch.cond(y.sum() > 20, lambda t: t.sin() + 1, lambda t: t.cos() - 1, (y,))
        return torch.relu(y * 2 - 1) * 3


class Loop(nn.Module):
    """while_loop between two parts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from torch._higher_order_ops.while_loop import while_loop

        y = torch.relu(x * 2 + 1) * 3
        steps = torch.zeros((), dtype=torch.int64)
        _, y = while_loop(lambda n, t: n < 3, lambda n, t: (n + 1, t * 0.5 + 1), (steps, y))
        return torch.relu(y * 2 - 1) * 3


class NonZero(nn.Module):
    """A number of rows that depends on the values; then a part whose input has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x * 2 + 1) - 3
        rows = torch.nonzero(y)
        return (rows * 2 + 1).float().sqrt() * 3


class Unique(nn.Module):
    """Sorted unique values, and how often each comes."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, counts = torch.unique((x * 2).round() + 1, return_counts=True)
        return (values * 2 + 1).relu() - 1, counts


class Item(nn.Module):
    """A number that is read from a tensor decides the size of a result."""

    def forward(self, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        n = kept.item()
        torch._check(n >= 1)
        torch._check(n <= 8)
        y = torch.relu(x * 2 + 1) * 3
        return y[:n] * 2


class AliasedOutputs(nn.Module):
    """Results that share memory: with one another, and with the argument."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.relu(x * 2 + 1) * 3
        return y, y.t(), y[:, 1:], y.view(-1), x.view(-1), x


class OddOutputs(nn.Module):
    """Constants, None, numbers and a weight among the results."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(4.0))

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        y = torch.relu(x * self.weight + 1) * 3
        return {
            "y": y,
            "none": None,
            "number": 3,
            "size": x.size(0) * 2,
            "weight": self.weight,
            "nested": [y.sum(), (torch.ones(2), True)],
        }


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


class Nested(nn.Module):
    """Arguments and results in dicts, lists, tuples and named tuples; keywords; numbers; a default."""

    def forward(
        self,
        batch: dict[str, Any],
        pair: Pair,
        scale: float = 2.0,
        *,
        masks: list[torch.Tensor | None],
        flag: bool = True,
    ) -> Pair:
        y = batch["image"] * scale + batch["more"][0] - pair.left
        if flag and masks[0] is not None:
            y = y * masks[0]
        return Pair(torch.relu(y) + pair.right, y.sum())


def _nested_calls() -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    def call() -> tuple[tuple[Any, ...], dict[str, Any]]:
        batch = {"image": torch.randn(3, 4), "more": (torch.randn(3, 4), 7)}
        pair = Pair(torch.randn(3, 4), torch.randn(3, 4))
        return (batch, pair), {"masks": [torch.randn(3, 4), None], "flag": True}

    return [call() for _ in range(2)]


class Complex(nn.Module):
    """A Fourier transform between two parts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x * 2 + 1) * 3
        spectrum = torch.fft.rfft(y)
        return torch.view_as_real(spectrum * 2).sum(-1).relu() * 2 + 1


class Double(nn.Module):
    """A few operators in float64 between two parts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x * 2 + 1) * 3
        y = y.double().cumsum(1).float()
        return torch.relu(y * 2 - 1) * 3


class NoDropout(nn.Module):
    """Operators with a dropout of 0 draw nothing: attention and dropout in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.lstm = nn.LSTM(4, 4, num_layers=2, dropout=0.3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.dropout(self.lstm(x)[0])
        q = y.unsqueeze(1)
        return nn.functional.scaled_dot_product_attention(q, q, q)


class SharedSubmodule(nn.Module):
    """One layer that is called twice, on both sides of an operator that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.fft.fft(self.layer(x)).real)


class TiedWeights(nn.Module):
    """An embedding whose matrix is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.out = nn.Linear(4, 10, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self.out(torch.tanh(self.embedding(tokens))), dim=-1)


def _tokens() -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((torch.randint(10, (batch, 5)),), {}) for batch in (3, 1, 8)]


class Sizes(nn.Module):
    """Sizes of intermediate results, and arithmetic on them, on both sides of an operator in PyTorch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x * 2 + 1).repeat(2, 1)
        z = torch.fft.fft(y).real
        rows, columns = y.shape
        z = (z * 2 + 1).expand(columns, rows, columns).sum(0) / (rows + 1)
        return z.relu().sum(1) + torch.arange(rows)


class StridedView(nn.Module):
    """A view whose strides in the exported graph are not those that an engine gives."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu((x * 2 + 1).transpose(1, 2)) * 3
        y = y.double().float().transpose(1, 2)
        return (y.view(x.size(0), -1) * 2 + 1).relu() * 3


class ManualSplit(nn.Module):
    """Two parts whose order the data does not tell: one writes what the other has read."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.state * 2 + x.sum(0)
        self.state.copy_(torch.fft.fft(torch.relu(x) * 2 + 1).real.sum(0))
        return before + self.state.relu() * 2 - 1


class MutatedParameter(nn.Module):
    """Writes to a parameter, as a codebook that follows what it sees does."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.codes.mul_(0.9).add_(x * 0.1)
        return (self.codes * x + 1).relu() - 2


class ReturnedViews(nn.Module):
    """Returns views of what it writes to: of its argument, and of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(3, 4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x[:, 0] = 2
        self.rows[1] = x.sum(0)
        return x[1:], x.t(), self.rows.view(-1)


PROGRAMS: dict[str, HardProgram] = {
    "in place": HardProgram(InPlace, _batches(4), _DYNAMIC),
    "writes to its input": HardProgram(WritesToInput, _one(3, 4), in_pytorch=("copy_",)),
    "KV cache": HardProgram(Cache, _cache_calls, in_pytorch=("copy_",)),
    "returned buffer": HardProgram(Counter, _one(2, 3), in_pytorch=("copy_",)),
    "train-mode batch norm": HardProgram(
        TrainModeNorm, _one(5, 4), in_pytorch=("_native_batch_norm_legit_functional", "linear", "copy_")
    ),
    "cond": HardProgram(Branch, _one(3, 4), in_pytorch=("cond",), engines=2),
    "while_loop": HardProgram(Loop, _one(3, 4), in_pytorch=("while_loop",), engines=2),
    "nonzero": HardProgram(NonZero, _batches(4), _DYNAMIC, in_pytorch=()),
    "unique": HardProgram(Unique, _one(3, 4)),
    "item": HardProgram(
        Item,
        lambda: [((torch.randn(8, 4), torch.tensor(n)), {}) for n in (3, 8, 1)],
        in_pytorch=("item", "_assert_scalar", "mul"),
    ),
    "aliased outputs": HardProgram(AliasedOutputs, _batches(4), _DYNAMIC),
    "odd outputs": HardProgram(OddOutputs, _batches(4), _DYNAMIC),
    "nested arguments": HardProgram(Nested, _nested_calls),
    "complex": HardProgram(Complex, _batches(8), _DYNAMIC, in_pytorch=("fft_rfft", "mul"), engines=2),
    "double": HardProgram(
        Double, _batches(4), _DYNAMIC, in_pytorch=("_to_copy", "cumsum", "_to_copy"), engines=2
    ),
    "no dropout": HardProgram(NoDropout, _one(2, 5, 4)),
    "shared submodule": HardProgram(
        SharedSubmodule, _batches(4), _DYNAMIC, in_pytorch=("fft_fft",), engines=2
    ),
    "tied weights": HardProgram(TiedWeights, _tokens, _DYNAMIC),
    "sizes": HardProgram(Sizes, _batches(4), _DYNAMIC, in_pytorch=("fft_fft",), engines=2),
    "strided view": HardProgram(StridedView, _batches(3, 4), _DYNAMIC, in_pytorch=("_to_copy",), engines=2),
    "mutated parameter": HardProgram(MutatedParameter, _one(3, 4), in_pytorch=("copy_",)),
    "returned views": HardProgram(ReturnedViews, _one(3, 4), in_pytorch=("copy_",)),
    "order of writes": HardProgram(ManualSplit, _one(3, 4), in_pytorch=("fft_fft", "copy_"), engines=2),
}
