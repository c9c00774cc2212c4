"""Whether two tensors share elements."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.examples import examples
from trt_rt._core.shared_memory import overlaps_itself, share_elements

MEMORY = 128
"""Elements: more than three axes of four steps of nine reach."""


@st.composite
def tensors(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tensors over one storage, often with the same strides."""
    memory = torch.arange(MEMORY)
    rank = draw(st.integers(0, 3))
    strides = draw(st.lists(st.integers(0, 9), min_size=rank, max_size=rank))
    found = []
    for _ in range(2):
        own = strides if draw(st.booleans()) else draw(st.permutations(strides))
        sizes = [draw(st.integers(0, 4)) for _ in own]
        last = sum((size - 1) * stride for size, stride in zip(sizes, own, strict=True) if size)
        offset = draw(st.integers(0, MEMORY - 1 - last))
        found.append(memory.as_strided(sizes, own, offset))
    return found[0], found[1]


@examples(100)
@given(tensors())
def test_two_tensors_share_the_elements_that_they_have_in_common(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    a, b = pair
    truth = bool(set(a.flatten().tolist()) & set(b.flatten().tolist()))  # the memory holds its own positions
    if a.stride() == b.stride():
        assert share_elements(a, b) == truth
    else:
        assert share_elements(a, b) or not truth


@examples(100)
@given(tensors())
def test_a_tensor_that_is_said_not_to_overlap_itself_does_not(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    elements = pair[0].flatten().tolist()
    assert overlaps_itself(pair[0]) or len(set(elements)) == len(elements)


def test_parts_of_one_cache_share_nothing() -> None:
    cache = torch.zeros(5, 2, 8)
    keys, values = cache[:, 0], cache[:, 1]
    assert not share_elements(keys, values)
    assert share_elements(keys, cache[1:3, 0])
    assert not share_elements(cache[:2], cache[2:])
    assert share_elements(cache, cache)
    assert not share_elements(cache, torch.zeros(5, 2, 8))


def test_many_possibilities_count_as_shared() -> None:
    memory = torch.zeros(100_000)
    a, b = memory.as_strided((300, 300), (1, 1)), memory.as_strided((300, 300), (1, 1), 10)
    assert share_elements(a, b)
