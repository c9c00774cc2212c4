"""Finding a program's engines takes no time, touches no foreign data and has no depth."""

from __future__ import annotations

from collections import UserDict, UserList
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch

from tests.reference import plans
from trt_rt import TRTModule
from trt_rt.module.find_engines import find_engines


class Program(torch.nn.Module):
    """Holds an engine and something else."""

    def __init__(self, engine: TRTModule, **attributes: Any) -> None:
        super().__init__()
        self.engine = engine
        for name, value in attributes.items():
            setattr(self, name, value)


@pytest.fixture
def engine() -> TRTModule:
    return TRTModule(plans.affine())


class Untouchable:
    """Fails when it is looked into."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return Untouchable
        raise AssertionError(f"{name} of an item was looked at")


class LazyMapping(Mapping[str, Any]):
    """Reads its values from somewhere slow."""

    def __getitem__(self, key: str) -> Any:
        raise AssertionError("a lazy mapping was read")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("a lazy mapping was read")

    def __len__(self) -> int:
        return 3


class LazySequence(Sequence[Any]):
    """The same, in order."""

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("a lazy sequence was read")

    def __len__(self) -> int:
        return 3


class Watched(list[Any]):
    """Counts how many of its items were taken."""

    taken = 0

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            self.taken += 1
            yield item


@pytest.mark.parametrize("lazy", [LazyMapping(), LazySequence()], ids=["mapping", "sequence"])
def test_lazy_containers_are_left_alone(engine: TRTModule, lazy: Any) -> None:
    assert find_engines(Program(engine, data=lazy)) == [engine]


def test_a_big_list_is_not_walked(engine: TRTModule) -> None:
    data = Watched(range(2_000_000))
    assert find_engines(Program(engine, data=data)) == [engine]
    assert data.taken <= 10_000


def test_big_containers_in_containers(engine: TRTModule) -> None:
    """However the items are spread, only so many are looked at."""
    inner = [Watched(range(100)) for _ in range(1000)]
    assert find_engines(Program(engine, data=inner)) == [engine]
    assert sum(each.taken for each in inner) <= 20_000


@pytest.mark.parametrize("depth", [100, 100_000])
@pytest.mark.parametrize("kind", ["list", "dict", "tuple"])
def test_deep_nesting(engine: TRTModule, kind: str, depth: int) -> None:
    nested: Any = None
    for _ in range(depth):
        nested = {"list": [nested], "dict": {"x": nested}, "tuple": (nested,)}[kind]
    assert find_engines(Program(engine, data=nested)) == [engine]
    while nested:  # taken apart, or its destructors would nest as deeply
        nested = nested["x"] if kind == "dict" else nested[0]


def test_many_modules_are_all_searched(engine: TRTModule) -> None:
    """Modules are no data: all of them are found, however many and however deep."""
    module: torch.nn.Module = engine
    for _ in range(2000):
        module = torch.nn.ModuleList([module])
    assert find_engines(module) == [engine]
    wide = torch.nn.ModuleList([torch.nn.Identity() for _ in range(20_000)])
    assert find_engines(torch.nn.ModuleList([wide, engine])) == [engine]


def test_many_engines_in_plain_containers(engine: TRTModule) -> None:
    """What PyTorch does not count as submodules is found where programs keep modules."""
    others = [TRTModule(engine.engine) for _ in range(100)]
    holders = {
        "a_list": others[:40],
        "a_dict": {str(index): each for index, each in enumerate(others[40:80])},
        "nested": {"layers": [(each,) for each in others[80:]]},
    }
    assert find_engines(Program(engine, **holders)) == [engine, *others]


@pytest.mark.parametrize("wrap", [UserList, lambda items: UserDict(enumerate(items))], ids=["list", "dict"])
def test_containers_of_other_classes(engine: TRTModule, wrap: Any) -> None:
    """Only Python's own containers, and classes derived from them, are looked into."""
    with pytest.raises(ValueError, match="no TensorRT engine"):
        find_engines(Program(torch.nn.Identity(), data=wrap([engine])))  # type: ignore[arg-type]
