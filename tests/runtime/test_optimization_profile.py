"""optimization_profile: which profile runs, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.behaviours.recording import recorded
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import Engine, InputError, TRTModule, reference
from trt_rt.backend import load
from trt_rt.runtime import optimization_profile


def check(called: Any, *batches: int) -> None:
    for batch in batches:
        x = torch.randn(batch, 7)
        torch.testing.assert_close(called(x), eager_affine(x))


@pytest.fixture
def module() -> TRTModule:
    """Profile 0 admits batches of 1 to 4, profile 1 of 5 to 32."""
    return TRTModule(plans.profiles())


@pytest.fixture(scope="module")
def overlapping() -> bytes:
    """Both profiles admit batches of 2 to 8."""
    ranges = [{"x": ([1, 7], [2, 7], [8, 7])}, {"x": ([2, 7], [8, 7], [32, 7])}]
    return reference.build(
        plans.Affine(),
        (torch.zeros(3, 7),),
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=32)}},
        profiles=ranges,
    )


def test_the_profile_that_was_asked_for_runs(overlapping: bytes) -> None:
    backend, calls = recorded(load("reference"))
    module = TRTModule(Engine.from_bytes(overlapping, backend=backend, device="cpu"))
    check(module, 4)
    with optimization_profile(module, 1) as called:
        check(called, 4, 8, 4)
        with optimization_profile(module, 0):
            check(called, 4, 8)
        check(called, 4)
    check(module, 4, 1)
    selected = [arguments[0] for arguments in calls.arguments("set_optimization_profile_async")]
    assert selected == [1, 0, 1, 0]


def test_only_that_one_is_used(module: TRTModule) -> None:
    for profile, fitting, other in ((0, 3, 8), (1, 8, 3)):
        with optimization_profile(module, profile) as called:
            check(called, fitting)
            with pytest.raises(InputError, match=rf"\[{other}, 7\], but optimization profile {profile}"):
                called(torch.randn(other, 7))
            check(called, fitting)
    check(module, 3, 8)


def test_beyond_every_profile(module: TRTModule) -> None:
    for profile in (0, 1, "auto", None):
        with optimization_profile(module, profile) as called:
            with pytest.raises(InputError, match=r"\[33, 7\]"):
                called(torch.randn(33, 7))
            check(called, 8 if profile == 1 else 3)


@pytest.mark.parametrize("automatic", ["auto", None])
def test_automatic_within_a_number(module: TRTModule, automatic: Any) -> None:
    with optimization_profile(module, 1):
        with optimization_profile(module, automatic) as called:
            check(called, 3, 8, 3)
        with pytest.raises(InputError, match="optimization profile 1"):
            module(torch.randn(3, 7))


@pytest.mark.parametrize("profile", [2, -1, 10**30])
def test_a_profile_that_is_not_there(module: TRTModule, profile: int) -> None:
    with pytest.raises(ValueError, match=rf"profile={profile}: .* profiles 0 to 1"):
        optimization_profile(module, profile).__enter__()
    check(module, 3, 8)


@pytest.mark.parametrize(
    ("profile", "error"), [("decode", ValueError), (1.0, TypeError), (True, TypeError), ([0], TypeError)]
)
def test_what_is_no_profile(module: TRTModule, profile: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="'auto' or None"):
        optimization_profile(module, profile)


def test_an_integer_of_another_kind(module: TRTModule) -> None:
    with optimization_profile(module, np.int64(1)) as called:
        check(called, 8)


def test_engines_of_one_tree_need_it_all() -> None:
    tree = torch.nn.Sequential(
        TRTModule(Engine.from_bytes(plans.profiles(), name="two")),
        TRTModule(Engine.from_bytes(plans.affine(), name="one")),
    )
    with pytest.raises(ValueError, match="'one' has profile 0 only"):
        optimization_profile(tree, 1).__enter__()
    with optimization_profile(tree[0], 1) as called:
        check(called, 8)
    with optimization_profile(tree, 0):
        assert tree(torch.randn(3, 7)).shape == (3, 7)
