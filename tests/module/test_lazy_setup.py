"""``settings.lazy_engine_init`` postpones loading the engine."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import Engine, PlanError, SettingError, TRTModule, enable_pre_allocated_outputs

LAZY = SimpleNamespace(lazy_engine_init=True)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by a name at each `Engine.from_bytes`."""
    names: list[str] = []
    load = Engine.from_bytes.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Engine], *args: Any, **options: Any) -> Engine:
        names.append(options["name"])
        return load(cls, *args, **options)

    monkeypatch.setattr(Engine, "from_bytes", classmethod(counted))
    return names


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda module, x: module.setup_engine(), id="setup_engine"),
        pytest.param(lambda module, x: module(x), id="call"),
        pytest.param(lambda module, x: module(x=x), id="keyword call"),
        pytest.param(lambda module, x: module(x, out=torch.empty(3, 7)), id="out"),
        pytest.param(lambda module, x: module.bind(x)(), id="bind"),
        pytest.param(lambda module, x: module.engine, id="engine"),
        pytest.param(lambda module, x: module.executor, id="executor"),
        pytest.param(lambda module, x: module.input_binding_names, id="names"),
        pytest.param(lambda module, x: module.stats(), id="stats"),
        pytest.param(lambda module, x: module.configure(cuda_graphs=True), id="configure"),
        pytest.param(lambda module, x: module.set_pre_allocated_outputs(True), id="pre-allocated"),
        pytest.param(lambda module, x: copy.deepcopy(module), id="deepcopy"),
        pytest.param(lambda module, x: enable_pre_allocated_outputs(module).__enter__(), id="control"),
    ],
)
def test_the_engine_is_loaded_when_it_is_needed(loads: list[str], use: Any, x: torch.Tensor) -> None:
    module = TRTModule(plans.affine(), name="lazy", settings=LAZY)
    assert "not loaded yet" in repr(module)
    assert loads == []
    use(module, x)
    torch.testing.assert_close(module(x), eager_affine(x))
    module.setup_engine()
    assert loads == ["lazy"]
    assert "not loaded yet" not in repr(module)


@pytest.mark.parametrize("settings", [None, {}, {"lazy_engine_init": False}, SimpleNamespace()])
def test_otherwise_it_is_loaded_at_once(loads: list[str], settings: Any) -> None:
    TRTModule(plans.affine(), settings=settings)
    assert len(loads) == 1


def test_a_mapping_may_say_so_too(loads: list[str]) -> None:
    TRTModule(plans.affine(), settings={"lazy_engine_init": True})
    assert loads == []


def test_sixteen_first_calls_load_it_once(loads: list[str], x: torch.Tensor) -> None:
    module = TRTModule(plans.affine(), settings=LAZY)
    barrier = threading.Barrier(16)
    results: list[torch.Tensor] = []

    def call() -> None:
        barrier.wait()
        results.append(module(x))

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(results) == 16
    for result in results:
        torch.testing.assert_close(result, eager_affine(x))


def test_what_is_wrong_is_said_then_and_again(tmp_path: Path, x: torch.Tensor) -> None:
    for _ in range(2):
        damaged = TRTModule(plans.affine()[:100], settings=LAZY)
        with pytest.raises(PlanError):
            damaged(x)
    names = TRTModule(plans.affine(), ["nothing"], settings=LAZY)
    for _ in range(2):
        with pytest.raises(SettingError, match="'nothing'"):
            names(x)
    path = tmp_path / "late.plan"
    late = TRTModule(path, settings=LAZY)
    with pytest.raises(FileNotFoundError):
        late(x)
    path.write_bytes(plans.affine())
    torch.testing.assert_close(late(x), eager_affine(x))
    assert late.name == "late.plan"


def test_a_loaded_engine_is_used_at_once() -> None:
    engine = Engine.from_bytes(plans.affine())
    assert "not loaded yet" not in repr(TRTModule(engine, settings=LAZY))


def test_hooks_set_before_are_called(x: torch.Tensor) -> None:
    module = TRTModule(plans.affine(), settings=LAZY)
    calls: list[str] = []
    module.register_forward_hook(lambda *_: calls.append("hook"))
    for _ in range(2):
        torch.testing.assert_close(module(x), eager_affine(x))
    assert calls == ["hook", "hook"]
