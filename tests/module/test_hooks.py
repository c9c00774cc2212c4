"""A TRTModule is an nn.Module: hooks, overridden and compiled calls work as anywhere."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module

from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import InputError, TRTModule


@pytest.fixture
def log() -> list[str]:
    return []


def test_forward_hooks(module: TRTModule, x: torch.Tensor, log: list[str]) -> None:
    module(x)
    handles = [
        module.register_forward_pre_hook(lambda m, args: log.append("pre")),
        module.register_forward_hook(lambda m, args, result: log.append("post")),
    ]
    torch.testing.assert_close(module(x), eager_affine(x))
    torch.testing.assert_close(module(x=x), eager_affine(x))
    assert log == ["pre", "post", "pre", "post"]
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(module(x), eager_affine(x))
    assert len(log) == 4


def test_hooks_change_arguments_and_results(module: TRTModule, x: torch.Tensor) -> None:
    with_kwargs = module.register_forward_pre_hook(
        lambda m, args, kwargs: ((args[0] + 1,), kwargs), with_kwargs=True
    )
    post = module.register_forward_hook(lambda m, args, result: result * 10)
    torch.testing.assert_close(module(x), eager_affine(x + 1) * 10)
    post.remove()
    torch.testing.assert_close(module(x), eager_affine(x + 1))
    with_kwargs.remove()
    torch.testing.assert_close(module(x), eager_affine(x))


def test_a_hook_that_runs_always(module: TRTModule, x: torch.Tensor, log: list[str]) -> None:
    module.register_forward_hook(lambda m, args, result: log.append("always"), always_call=True)
    with pytest.raises(InputError):
        module(x[:, :3])
    assert log == ["always"]
    torch.testing.assert_close(module(x), eager_affine(x))


GLOBAL_HOOKS = [
    torch_module.register_module_forward_pre_hook,
    torch_module.register_module_forward_hook,
]


@pytest.mark.parametrize("register", GLOBAL_HOOKS, ids=lambda register: register.__name__)
def test_global_hooks(module: TRTModule, x: torch.Tensor, log: list[str], register: Any) -> None:
    handle = register(lambda m, *args: log.append(type(m).__name__))
    try:
        torch.testing.assert_close(module(x), eager_affine(x))
        assert log == ["TRTModule"]
    finally:
        handle.remove()
    torch.testing.assert_close(module(x), eager_affine(x))
    assert log == ["TRTModule"]


def test_hook_dicts_that_are_replaced(module: TRTModule, x: torch.Tensor, log: list[str]) -> None:
    from collections import OrderedDict

    module._forward_hooks = OrderedDict({0: lambda m, args, result: log.append("replaced")})
    torch.testing.assert_close(module(x), eager_affine(x))
    assert log == ["replaced"]


def test_backward_hooks_do_no_harm(module: TRTModule, x: torch.Tensor) -> None:
    handle = module.register_full_backward_hook(lambda m, grad_in, grad_out: None)
    torch.testing.assert_close(module(x), eager_affine(x))
    handle.remove()
    torch.testing.assert_close(module(x), eager_affine(x))


def test_a_subclass_overrides_forward(x: torch.Tensor) -> None:
    class Scaled(TRTModule):
        def forward(self, x: torch.Tensor, *, scale: float = 10.0) -> torch.Tensor:
            return super().forward(x) * scale

    scaled = Scaled(plans.affine())
    torch.testing.assert_close(scaled(x), eager_affine(x) * 10)
    torch.testing.assert_close(scaled(x, scale=2.0), eager_affine(x) * 2)
    torch.testing.assert_close(copy.deepcopy(scaled)(x), eager_affine(x) * 10)


def test_a_subclass_that_does_not_override_forward(x: torch.Tensor) -> None:
    class Named(TRTModule):
        def __init__(self, label: str) -> None:
            super().__init__(plans.affine())
            self.label = label

    torch.testing.assert_close(Named("a")(x), eager_affine(x))


def test_forward_is_replaced_on_the_instance(
    module: TRTModule, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "forward", lambda x: x - 1)
        torch.testing.assert_close(module(x), x - 1)
    torch.testing.assert_close(module(x), eager_affine(x))


def test_compiled_call_impl_is_honoured(module: TRTModule, x: torch.Tensor) -> None:
    module._compiled_call_impl = lambda *args: "compiled"
    assert module(x) == "compiled"
    module._compiled_call_impl = None
    torch.testing.assert_close(module(x), eager_affine(x))


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace the builtin")
def test_torch_compile_around_it(module: TRTModule) -> None:
    # PyTorch says once that it leaves the call alone.
    network = torch.compile(nn.Sequential(nn.Softplus(), module, nn.Softplus()), backend="eager")
    softplus = nn.Softplus()
    for batch in (3, 3, 5, 1):
        x = torch.randn(batch, 7)
        torch.testing.assert_close(network(x), softplus(eager_affine(softplus(x))))


@pytest.mark.usefixtures("fresh_dynamo")
def test_module_compile(module: TRTModule) -> None:
    module.compile(backend="eager")
    for batch in (3, 3, 5, 1):
        x = torch.randn(batch, 7)
        torch.testing.assert_close(module(x), eager_affine(x))


def test_a_subclass_with_a_call_of_its_own(x: torch.Tensor) -> None:
    class Twice(TRTModule):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs) * 2

    class Plain(Twice):
        pass

    for kind in (Twice, Plain):
        module = kind(plans.affine())
        torch.testing.assert_close(module(x), eager_affine(x) * 2)
        torch.testing.assert_close(module(x=x), eager_affine(x) * 2)


def test_a_class_whose_call_is_replaced(monkeypatch: pytest.MonkeyPatch, x: torch.Tensor) -> None:
    class Replaced(TRTModule):
        pass

    module = Replaced(plans.affine())
    torch.testing.assert_close(module(x), eager_affine(x))
    with monkeypatch.context() as patch:
        patch.setattr(Replaced, "__call__", lambda self, *args, **kwargs: (args, kwargs), raising=False)
        assert module(1, 2) == ((1, 2), {})
        assert module(1, out=3) == ((1,), {"out": 3})
    torch.testing.assert_close(module(x), eager_affine(x))


def test_every_way_to_pass_arguments(module: TRTModule, x: torch.Tensor) -> None:
    wanted = eager_affine(x)
    out = torch.empty_like(x)
    calls = [
        lambda: module(x),
        lambda: module(*[x]),
        lambda: module(x=x),
        lambda: module.__call__(x),
        lambda: TRTModule.__call__(module, x),
        lambda: module.executor(x),
        lambda: module.executor(*[x]),
        lambda: module.bind(x).__call__(),
        lambda: module(x, out=None),
    ]
    for call in calls:
        torch.testing.assert_close(call(), wanted)
    for into in (
        lambda: module(x, out=out),
        lambda: module(x=x, out=out),
        lambda: module(*[x], out=out),
    ):
        out.zero_()
        assert into() is out
        torch.testing.assert_close(out, wanted)
    with pytest.raises(TypeError):
        module.executor(x=x)
    with pytest.raises(TypeError):
        module.bind(x)(x=x)
