"""refit: new weights by name, all or none of them, and nothing else changes."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import trt_rt
from tests.built_once import built_once
from tests.patience import SECONDS_UNTIL_DEADLOCK
from tests.runtime.budget_engines import plain_plan
from trt_rt import (
    BackendError,
    ClosedError,
    Engine,
    ExecutionError,
    InputError,
    TRTModule,
    reference,
    refit,
)
from trt_rt.backend import load

X = torch.linspace(-1, 1, 12).reshape(3, 4)


class Network(torch.nn.Module):
    """A layer, a normalization with buffers, a constant that is no parameter, and an integer buffer."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layer = torch.nn.Linear(4, 6, dtype=dtype)
        self.scale = torch.nn.Parameter(torch.empty(6, dtype=dtype))
        self.register_buffer("order", torch.randperm(6, generator=generator))
        self.register_buffer("fixed", torch.full((6,), 3.0, dtype=dtype), persistent=False)
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.layer(x) * self.scale + self.fixed)[:, self.order]


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> Network:
    return Network(seed, dtype).eval()


@built_once
def plan(dtype: torch.dtype = torch.float32, device: str = "cpu", streamable: bool = False) -> bytes:
    return reference.build(
        network(0, dtype),
        (torch.zeros(3, 4, dtype=dtype),),
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=32)}},
        refittable=True,
        streamable_weights=streamable,
        device=device,
    )


def check(module: Any, seed: int, x: torch.Tensor = X) -> None:
    expected = network(seed, x.dtype)(x.cpu()).to(x.device)
    torch.testing.assert_close(module(x), expected)


NAMES = sorted(network().state_dict())


@pytest.fixture
def module() -> TRTModule:
    return TRTModule(Engine.from_bytes(plan(), name="net"))


def test_new_weights_by_equal_names(module: TRTModule) -> None:
    check(module, 0)
    for seed in (1, 2, 0):
        result = refit(module, network(seed).state_dict())
        assert (result.missing, result.unexpected) == ((), ())
        check(module, seed)


def test_the_engine_is_its_own_after_the_weights_are_gone(module: TRTModule) -> None:
    weights = {key: value.clone() for key, value in network(1).state_dict().items()}
    refit(module, weights)
    for value in weights.values():
        value.zero_()
    del weights, value
    gc.collect()
    check(module, 1)


def test_before_the_first_call(module: TRTModule) -> None:
    refit(module, network(1).state_dict())
    check(module, 1)


@pytest.mark.parametrize(
    "kind",
    [
        lambda key: key,
        lambda key: (key, torch.float32),
        lambda key: [key, np.dtype("float16")],  # what Torch-TensorRT found out; the engine knows better
    ],
    ids=["key", "pair", "list"],
)
def test_a_weight_name_map(kind: Any) -> None:
    name_map = {name: kind(f"model.{name}") for name in NAMES}
    module = TRTModule(plan(), weight_name_map=name_map)
    refit(module, {f"model.{key}": value for key, value in network(1).state_dict().items()})
    check(module, 1)
    assert module.weight_name_map is name_map


def test_a_map_of_some_names(module: TRTModule) -> None:
    module.weight_name_map = {"scale": "gamma"}
    weights = dict(network(1).state_dict())
    weights["gamma"] = weights.pop("scale")
    refit(module, weights)
    check(module, 1)


def test_names_that_are_swapped(module: TRTModule) -> None:
    module.weight_name_map = {"scale": "layer.bias", "layer.bias": "scale"}
    weights = dict(network(1).state_dict())
    weights["scale"], weights["layer.bias"] = weights["layer.bias"], weights["scale"]
    refit(module, weights)
    check(module, 1)


def test_constants_of_torch_tensorrt(module: TRTModule) -> None:
    weights = dict(network(1).state_dict())
    module.weight_name_map = {"constant_mapping": {"scale": weights.pop("scale").numpy()}}
    refit(module, weights)
    check(module, 1)


def test_a_map_to_several_keys_is_refused_in_words(module: TRTModule) -> None:
    module.weight_name_map = {"scale": ["bn.weight", "bn.bias", "bn.running_mean"]}
    with pytest.raises(TypeError, match=r"bn\.running_mean.* for weight 'scale' of engine 'net'.*Compute"):
        refit(module, network(1).state_dict())
    check(module, 0)


def test_missing_weights_are_refused(module: TRTModule) -> None:
    weights = dict(network(1).state_dict())
    del weights["scale"], weights["order"]
    with pytest.raises(ValueError, match=r"engine 'net' .*\['scale', 'order'\].*strict=False") as caught:
        refit(module, weights)
    assert isinstance(caught.value, InputError)
    check(module, 0)


def test_keys_that_are_no_weights_are_refused(module: TRTModule) -> None:
    weights = {**network(1).state_dict(), "other": torch.zeros(3), "bn.weight": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"\['other', 'bn.weight'\], so their values would be lost"):
        refit(module, weights)
    check(module, 0)


def test_not_strict_takes_what_is_there(module: TRTModule) -> None:
    result = refit(module, {"scale": network(1).scale, "other": torch.zeros(3)}, strict=False)
    assert sorted(result.missing) == sorted(set(NAMES) - {"scale"})
    assert result.unexpected == ("other",)
    expected = network(0)
    expected.scale.data.copy_(network(1).scale)
    torch.testing.assert_close(module(X), expected(X).detach())


def test_not_strict_with_nothing(module: TRTModule) -> None:
    assert sorted(refit(module, {}, strict=False).missing) == NAMES
    check(module, 0)


BAD_VALUES = {
    "another dtype": (lambda w: w.half(), TypeError, r"float16, and weight .* is torch.float32: convert"),
    "double": (lambda w: w.double(), TypeError, r"float64, and weight .* is torch.float32"),
    "too few": (lambda w: w[:-1], ValueError, r"has 5 elements, its shape is \[5\], and weight .* has 6"),
    "too many": (lambda w: w.repeat(2), ValueError, r"has 12 elements"),
    "empty": (lambda w: w[:0], ValueError, r"has 0 elements"),
    "no tensor": (
        lambda w: w.detach().numpy(),
        TypeError,
        "is ndarray, and weight 'scale' needs",
    ),
    "none": (lambda w: None, TypeError, "is NoneType"),
    "meta": (lambda w: w.to("meta"), TypeError, "on meta"),
    "sparse": (lambda w: w.detach().to_sparse(), TypeError, "sparse"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_values_that_do_not_fit(module: TRTModule, change: Any, error: type, message: str) -> None:
    weights = dict(network(1).state_dict())
    weights["scale"] = change(weights["scale"])
    with pytest.raises(error, match=rf"state_dict\['scale'\] .*{message}"):
        refit(module, weights)
    check(module, 0)
    check(TRTModule(module.engine.serialize()), 0)


def test_values_of_any_layout(module: TRTModule) -> None:
    weights = network(1).state_dict()
    weights["layer.weight"] = weights["layer.weight"].t().contiguous().t()
    weights["scale"] = torch.nn.Parameter(weights["scale"].repeat_interleave(2)[::2])
    assert not weights["layer.weight"].is_contiguous()
    refit(module, weights)
    check(module, 1)


def _negative_in_place(weight: torch.Tensor) -> torch.Tensor:
    weight = weight.clone()
    weight.data = torch._neg_view(-weight)
    return weight


def _imaginary_part(weight: torch.Tensor) -> torch.Tensor:
    return torch.complex(torch.zeros_like(weight), -weight).conj().imag


@pytest.mark.parametrize("negative", [torch._neg_view, _negative_in_place, _imaginary_part])
def test_values_that_still_have_to_be_negated(module: TRTModule, negative: Any) -> None:
    weights = network(1).state_dict()
    for name in ("layer.weight", "scale"):
        value = weights[name]
        weights[name] = negative(-value if negative is torch._neg_view else value)
        assert weights[name].is_neg()
        torch.testing.assert_close(weights[name], value)
    refit(module, weights)
    check(module, 1)


def test_a_value_whose_memory_was_freed(module: TRTModule) -> None:
    weights = network(1).state_dict()
    weights["scale"].untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"state_dict\['scale'\] .*freed"):
        refit(module, weights)
    check(module, 0)


def test_a_module_instead_of_its_state_dict(module: TRTModule) -> None:
    with pytest.raises(TypeError, match=r"pass its state_dict\(\)"):
        refit(module, network(1))


@pytest.mark.parametrize("state_dict", [None, [("scale", torch.zeros(6))], "weights.pt"])
def test_what_is_no_state_dict(module: TRTModule, state_dict: Any) -> None:
    with pytest.raises(TypeError, match="must be a mapping"):
        refit(module, state_dict)


def test_a_module_with_no_engine() -> None:
    with pytest.raises(ValueError, match="no TensorRT engine"):
        refit(torch.nn.Linear(2, 2), {})


def test_an_engine_that_was_not_built_for_it() -> None:
    module = TRTModule(Engine.from_bytes(plain_plan(), name="stiff"))
    for strict in (True, False):
        with pytest.raises(BackendError, match="'stiff' cannot be refitted"):
            refit(module, {"weight": torch.zeros(4, 4)}, strict=strict)
    x = torch.randn(3, 4)
    torch.testing.assert_close(module(x), x + 1)


def test_a_closed_engine(module: TRTModule) -> None:
    module.engine.close()
    with pytest.raises(ClosedError):
        refit(module, network(1).state_dict())


def test_half_precision() -> None:
    module = TRTModule(plan(torch.float16))
    x = X.half()
    refit(module, network(1, torch.float16).state_dict())
    check(module, 1, x)
    with pytest.raises(TypeError, match="float16: convert"):
        refit(module, network(2).state_dict())
    check(module, 1, x)


def test_the_plan_has_the_new_weights(module: TRTModule) -> None:
    before = module.engine.serialize()
    refit(module, network(1).state_dict())
    after = module.engine.serialize()
    assert before == plan()
    assert after != before
    for copied in (TRTModule(after), pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        check(copied, 1)
        refit(copied, network(2).state_dict())
        check(copied, 2)
    check(TRTModule(before), 0)


def test_modules_of_one_engine_change_together(module: TRTModule) -> None:
    other = TRTModule(module.engine)
    check(other, 0)
    refit(module, network(1).state_dict())
    check(other, 1)
    refit(torch.nn.ModuleList([module, other]), network(2).state_dict())
    check(module, 2)
    check(other, 2)


def test_engines_of_a_tree() -> None:
    tree = torch.nn.ModuleDict({"a": TRTModule(plan()), "b": torch.nn.Sequential(TRTModule(plan()))})
    tree["a"].weight_name_map = {name: f"a.{name}" for name in NAMES}
    tree["b"][0].weight_name_map = {name: f"b.{name}" for name in NAMES}
    weights = {f"a.{key}": value for key, value in network(1).state_dict().items()}
    weights.update((f"b.{key}", value) for key, value in network(2).state_dict().items())
    refit(tree, weights)
    check(tree["a"], 1)
    check(tree["b"], 2)


def test_an_engine_in_a_tree_that_cannot() -> None:
    tree = torch.nn.ModuleList([TRTModule(Engine.from_bytes(plain_plan(), name="stiff")), TRTModule(plan())])
    with pytest.raises(BackendError, match="'stiff' cannot be refitted"):
        refit(tree, network(1).state_dict())
    check(tree[1], 0)
    refit(tree, network(1).state_dict(), strict=False)
    check(tree[1], 1)


class Profiler(reference.IProfiler):
    def __init__(self) -> None:
        reference.IProfiler.__init__(self)
        self.layers = 0

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        self.layers += 1


@pytest.mark.parametrize(
    "modes",
    [
        {"pre_allocated_outputs": 2},
        {"output_allocator": True},
        {"optimization_profile": 0},
        {"dynamic_resources": True},
        {"cuda_graphs": True},
        {"cuda_graphs": True, "pre_allocated_outputs": 1, "dynamic_resources": True},
    ],
    ids=lambda modes: "+".join(modes),
)
def test_modes_stay(module: TRTModule, modes: dict[str, Any]) -> None:
    module.executors.change(**modes)
    bound = module.bind(X)
    for seed in (0, 1, 2):
        refit(module, network(seed).state_dict())
        for batch in (3, 1, 3):
            check(module, seed, X[:batch])
        torch.testing.assert_close(bound(), network(seed)(X).detach())
    before = module.executors.modes
    assert {name: getattr(before, name) for name in modes} == modes


def test_a_profiler_stays(module: TRTModule) -> None:
    profiler = Profiler()
    module.executors.change(profiler=profiler)
    refit(module, network(1).state_dict())
    check(module, 1)
    assert profiler.layers > 0


def test_a_budget_stays() -> None:
    module = TRTModule(plan(streamable=True))
    module.engine.set_weight_streaming_budget(20)
    refit(module, network(1).state_dict())
    assert module.engine.weight_streaming_budget == 20
    check(module, 1)


class FailingHalfWay(reference.Refitter):
    """Changes the engine, and then says that it could not."""

    refusals = 0
    error: BaseException | None = None

    def refit_cuda_engine(self) -> bool:
        assert super().refit_cuda_engine()
        if FailingHalfWay.refusals == 0:
            return True
        FailingHalfWay.refusals -= 1
        if FailingHalfWay.error is not None:
            raise FailingHalfWay.error
        self._reporter.failure("IRefitter::refitCudaEngine", "out of luck")
        return False


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    FailingHalfWay.refusals = 1
    FailingHalfWay.error = None
    monkeypatch.setattr(load("reference").api, "Refitter", FailingHalfWay)


@pytest.mark.usefixtures("failing")
def test_a_refit_that_fails_leaves_the_old_weights(module: TRTModule) -> None:
    bound = module.bind(X)
    check(module, 0)
    with pytest.raises(ExecutionError, match=r"'net' could not be .* the weights that .*out of luck"):
        refit(module, network(1).state_dict())
    check(module, 0)
    torch.testing.assert_close(bound(), network(0)(X).detach())
    check(TRTModule(module.engine.serialize()), 0)
    refit(module, network(2).state_dict())
    check(module, 2)
    module.engine.close()


@pytest.mark.usefixtures("failing")
def test_a_refit_that_fails_keeps_the_budget() -> None:
    module = TRTModule(plan(streamable=True))
    module.engine.set_weight_streaming_budget(20)
    with pytest.raises(ExecutionError):
        refit(module, network(1).state_dict())
    assert module.engine.weight_streaming_budget == 20
    check(module, 0)


@pytest.mark.usefixtures("failing")
def test_an_interrupt_leaves_the_old_weights(module: TRTModule) -> None:
    FailingHalfWay.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        refit(module, network(1).state_dict())
    check(module, 0)


@pytest.mark.usefixtures("failing")
def test_all_engines_of_a_tree_or_none() -> None:
    tree = torch.nn.ModuleList([TRTModule(plan()), TRTModule(plan()), TRTModule(plan())])
    refits = []

    class SecondFails(FailingHalfWay):
        def refit_cuda_engine(self) -> bool:
            refits.append(self)
            FailingHalfWay.refusals = int(len(refits) == 2)
            return super().refit_cuda_engine()

    load("reference").api.Refitter = SecondFails
    with pytest.raises(ExecutionError):
        refit(tree, network(1).state_dict())
    assert len(refits) == 2
    refits.clear()
    for module in tree:
        check(module, 0)


@pytest.mark.usefixtures("failing")
def test_an_engine_that_cannot_go_back_is_closed(module: TRTModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference.Runtime, "deserialize_cuda_engine", lambda self, serialized_engine: None)
    with pytest.raises(ExecutionError, match=r"'net' could not go back .* load it again"):
        refit(module, network(1).state_dict())
    assert module.engine.closed
    with pytest.raises(ClosedError, match="load it again"):
        module(X)


def test_an_engine_that_cannot_be_serialized_is_not_touched(
    module: TRTModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference.ICudaEngine, "serialize", lambda self: None)
    with pytest.raises(BackendError, match="'net': reference did not serialize it"):
        refit(module, network(1).state_dict())
    check(module, 0)


def test_weights_that_one_tensor_holds_are_changed_apart() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.ones(4))
            self.b = torch.nn.Parameter(self.a.data)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.a + self.b

    module = TRTModule(reference.build(Tied(), (torch.zeros(4),), refittable=True))
    x = torch.randn(4)
    refit(module, {"a": torch.full((4,), 2.0), "b": torch.full((4,), 5.0)})
    torch.testing.assert_close(module(x), x * 2 + 5)


def test_it_is_exported() -> None:
    assert trt_rt.refit is refit


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_on_a_gpu_with_weights_from_anywhere(place: str) -> None:
    module = TRTModule(plan(device="cuda"))
    x = X.cuda()
    module.executors.change(cuda_graphs=True)
    for seed in (0, 1, 2):
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(10_000_000)  # weights that are still being written
            weights = {key: value.to(place, copy=True) for key, value in network(seed).state_dict().items()}
            refit(module, weights)
        for _ in range(3):
            check(module, seed, x)


def test_threads_see_old_weights_or_new_ones(module: TRTModule) -> None:
    expected = [network(seed)(X).detach() for seed in (0, 1)]
    finished = threading.Event()
    seen: set[int] = set()

    def call() -> None:
        is_last = False
        while not is_last:
            is_last = finished.is_set()  # asked before the call: the last call sees the last weights
            result = module(X)
            (which,) = [index for index, value in enumerate(expected) if torch.allclose(result, value)]
            seen.add(which)

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(call) for _ in range(3)]
        try:
            for seed in (1, 0) * 10 + (1,):
                refit(module, network(seed).state_dict())
        finally:
            finished.set()
        for caller in callers:
            caller.result(SECONDS_UNTIL_DEADLOCK)
    assert 1 in seen
    check(module, 1)


def test_a_refit_under_a_fake_tensor_mode(module: TRTModule) -> None:
    """Copies of weights have values, whatever PyTorch's new tensors are around the refit."""
    weights = network(1).state_dict()
    weights["layer.weight"] = weights["layer.weight"].t().contiguous().t()
    with FakeTensorMode():
        refit(module, weights)
    check(module, 1)


def test_weights_that_a_transform_has_wrapped_are_refused(module: TRTModule) -> None:
    weights = network(1).state_dict()

    def refitted(scale: torch.Tensor) -> torch.Tensor:
        refit(module, {**weights, "scale": scale})
        return scale

    with pytest.raises(trt_rt.InputError, match=r"state_dict\['scale'\]"):
        torch.func.vmap(refitted)(torch.ones(2, 6))
    check(module, 0)
