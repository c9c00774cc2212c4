"""The progress of a compilation is one bar that fills."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import trt_rt
from trt_rt.program import part_builder, steps


class Bars:
    """Notes what a terminal would show."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []
        self.text: dict[str, str] = {}
        self.lengths: dict[str, int] = {}

    def start(self, phase: str, depth: int, steps: int) -> None:
        assert phase not in self.lengths, "a second bar"
        self.lengths[phase] = steps

    def label(self, phase: str, text: str) -> None:
        self.text[phase] = text

    def advance(self, phase: str, steps_done: int) -> None:
        self.seen.append((self.text[phase], steps_done / self.lengths[phase]))

    def finish(self, phase: str) -> None:
        del self.text[phase]


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> Bars:
    shown = Bars()

    @contextmanager
    def display(wanted: bool | None) -> Iterator[Bars]:
        yield shown

    monkeypatch.setattr(steps, "progress_display", display)
    return shown


class Split(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.fft.fft(torch.relu(x * 2 + 1)).real
        return torch.relu(x * 2 + 1)


def test_one_bar_fills_over_all_parts(bars: Bars) -> None:
    trt_rt.compile(Split(), inputs=[torch.ones(3, 4)], backend="reference", check="warn", cache_dir=None)
    labels = list(dict.fromkeys(text for text, _ in bars.seen))
    engines = [f"compile: engine {number} of 4" for number in (1, 2, 3, 4)]
    assert labels == ["compile: export", "compile: divide", *engines, "compile: check"]
    done = [fraction for _, fraction in bars.seen]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] >= 0.9
    assert max(later - earlier for earlier, later in itertools.pairwise(done)) <= 0.26
    assert not bars.text  # the bar is gone


def test_the_bar_goes_when_a_compilation_is_interrupted(bars: Bars, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(part_builder, "build_plan", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trt_rt.compile(Split(), inputs=[torch.ones(3, 4)], backend="reference", cache_dir=None)
    assert not bars.text
