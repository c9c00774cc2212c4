"""TensorRT-RTX's runtime settings and kernel cache."""

from __future__ import annotations

import enum
import gc
import inspect
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

import trt_rt
from tests import isolated
from tests.patience import SECONDS_UNTIL_DEADLOCK
from tests.reference import plans
from tests.reference.binding_signatures import members
from tests.runtime.played_rtx import (
    GOOD,
    CudaGraphStrategy,
    DynamicShapesKernelSpecializationStrategy,
    IRuntimeCache,
    IRuntimeConfig,
    is_right,
    load,
    made,
    played_backend,
)
from trt_rt import Backend, BackendError, RuntimeSettings, TRTModule, runtime_config


@pytest.fixture
def rtx() -> Backend:
    return played_backend()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "kernels.bin"


class TestSettings:
    def test_without_settings_contexts_are_made_as_ever(self, rtx: Backend) -> None:
        module = load(rtx)
        assert is_right(module)
        assert module.runtime_settings is None
        assert set(made) == {None}

    def test_settings_reach_the_context(self, rtx: Backend, cache: Path) -> None:
        settings = RuntimeSettings(
            runtime_cache=cache,
            dynamic_shapes_kernel_specialization_strategy="none",
            cuda_graph_strategy="whole_graph_capture",
        )
        module = load(rtx, settings)
        assert is_right(module)
        assert module.runtime_settings == settings
        config = made[-1]
        assert config is not None
        assert config.dynamic_shapes_kernel_specialization_strategy.name == "NONE"
        assert config.cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE"
        assert config.cache is not None

    def test_a_context_for_a_capture_compiles_eagerly_and_captures_nothing_itself(self, rtx: Backend) -> None:
        module = load(rtx, RuntimeSettings(cuda_graph_strategy="whole_graph_capture"))
        with trt_rt.enable_cudagraphs(module) as graphed:
            assert all(is_right(graphed) for _ in range(3))
        captured = [config for config in made if config and config.strategy.name == "USER_MANAGED"]
        assert captured
        assert {config.dynamic_shapes_kernel_specialization_strategy.name for config in captured} == {"EAGER"}
        assert {config.cuda_graph_strategy.name for config in captured} == {"DISABLED"}

    def test_runtime_config_changes_single_settings_for_a_time(self, rtx: Backend) -> None:
        before = RuntimeSettings(dynamic_shapes_kernel_specialization_strategy="eager")
        module = load(rtx, before)
        assert is_right(module)
        with runtime_config(module, cuda_graph_strategy="whole_graph_capture") as changed:
            assert is_right(changed)
            assert made[-1] is not None
            assert made[-1].cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE"
            assert made[-1].dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
        assert module.runtime_settings == before
        assert is_right(module)
        assert made[-1].cuda_graph_strategy.name == "DISABLED"

    def test_settings_can_be_assigned(self, rtx: Backend) -> None:
        module = load(rtx)
        assert is_right(module)
        module.runtime_settings = RuntimeSettings(cuda_graph_strategy="whole_graph_capture")
        assert is_right(module)
        assert made[-1] is not None
        module.runtime_settings = None
        assert is_right(module)
        assert made[-1] is None


class TestRefusals:
    def test_another_backend_says_that_it_has_no_such_settings(self) -> None:
        says = "backend 'reference' has no runtime settings: .* TensorRT-RTX"
        module = TRTModule(plans.affine())
        with pytest.raises(BackendError, match=says):
            TRTModule(plans.affine(), settings=RuntimeSettings())
        with pytest.raises(BackendError, match=says):
            module.runtime_settings = RuntimeSettings()
        with pytest.raises(BackendError, match=says), runtime_config(module, runtime_cache="x"):
            pytest.fail("it was entered")
        assert module.runtime_settings is None
        assert is_right(module)

    @pytest.mark.parametrize("name", ["tensorrt_lean", "tensorrt_dispatch"])
    def test_a_tensorrt_without_a_kernel_cache_has_no_settings(self, name: str) -> None:
        if not trt_rt.backends()[name].installed:
            pytest.skip(trt_rt.backends()[name].reason)
        with pytest.raises(BackendError, match="has no runtime settings"):
            trt_rt.backend.load(name).require_runtime_settings()

    def test_wrong_values_change_nothing(self, rtx: Backend) -> None:
        module = load(rtx)
        with pytest.raises(ValueError, match="cuda_graph_strategy='on': choose one of 'disabled'"):
            RuntimeSettings(cuda_graph_strategy="on")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="runtime_cache=3: give the path of a file"):
            RuntimeSettings(runtime_cache=3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="'lazy', 'eager', 'none'"):
            runtime_config(module, dynamic_shapes_kernel_specialization_strategy="soon")
        with pytest.raises(TypeError, match="there is no runtime setting cache; there are runtime_cache"):
            runtime_config(module, cache="x")
        assert module.runtime_settings is None


class TestCache:
    def test_kernels_are_kept_for_the_next_engine(self, rtx: Backend, cache: Path) -> None:
        for contexts in (1, 2):
            module = load(rtx, RuntimeSettings(runtime_cache=cache))
            assert is_right(module)
            module.engine.close()
            assert cache.read_bytes() == GOOD + contexts * b"k"
        assert list(cache.parent.iterdir()) == [cache]

    def test_contexts_share_one_cache(self, rtx: Backend, cache: Path) -> None:
        engine = load(rtx).engine
        modules = [TRTModule(engine, settings=RuntimeSettings(runtime_cache=cache)) for _ in range(3)]
        threads = [threading.Thread(target=is_right, args=(module,)) for module in modules]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(config.cache) for config in made if config}) == 1
        engine.save_runtime_cache()
        assert cache.read_bytes() == GOOD + b"kkk"

    def test_an_engine_that_is_collected_saves(self, rtx: Backend, cache: Path) -> None:
        module = load(rtx, RuntimeSettings(runtime_cache=cache))
        assert is_right(module)
        del module
        gc.collect()
        assert cache.read_bytes() == GOOD + b"k"

    def test_the_path_does_not_depend_on_the_current_folder(
        self, rtx: Backend, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(cache.parent)
        module = load(rtx, RuntimeSettings(runtime_cache=cache.name))
        assert is_right(module)
        monkeypatch.chdir("/")
        module.engine.close()
        assert cache.exists()

    def test_what_has_not_changed_is_not_written(self, rtx: Backend, cache: Path) -> None:
        module = load(rtx, RuntimeSettings(runtime_cache=cache))
        assert is_right(module)
        module.engine.save_runtime_cache()
        cache.unlink()
        module.engine.save_runtime_cache()
        assert not cache.exists()

    def test_a_damaged_file_is_ignored_with_a_warning_and_replaced(self, rtx: Backend, cache: Path) -> None:
        cache.write_bytes(b"damaged")
        with pytest.warns(RuntimeWarning, match=rf"does not accept the kernel cache '{cache}'"):
            module = load(rtx, RuntimeSettings(runtime_cache=cache))
        assert is_right(module)
        module.engine.close()
        assert cache.read_bytes() == GOOD + b"k"

    def test_a_place_that_cannot_be_written_is_an_os_error(self, rtx: Backend, tmp_path: Path) -> None:
        module = load(rtx)
        module.runtime_settings = RuntimeSettings(runtime_cache=tmp_path / "missing" / "kernels.bin")
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            is_right(module)
        module.runtime_settings = None
        assert is_right(module)

    def test_a_cache_that_cannot_be_saved_is_a_warning_at_close(self, rtx: Backend, cache: Path) -> None:
        module = load(rtx, RuntimeSettings(runtime_cache=cache))
        assert is_right(module)
        cache.mkdir()
        with pytest.raises(IsADirectoryError):
            module.engine.save_runtime_cache()
        with pytest.warns(RuntimeWarning, match="the kernel cache of TensorRT-RTX was not saved"):
            module.engine.close()
        assert stat.S_ISDIR(cache.stat().st_mode)
        assert module.engine.closed

    def test_a_signal_handler_closes_the_engine_while_it_saves(
        self, rtx: Backend, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A signal handler runs on the thread that saves, between two bytecodes."""
        module = load(rtx, RuntimeSettings(runtime_cache=cache))
        assert is_right(module)
        serialize = IRuntimeCache.serialize

        def serialize_and_close(self: IRuntimeCache) -> bytes:
            monkeypatch.setattr(IRuntimeCache, "serialize", serialize)
            module.engine.close()
            return serialize(self)

        monkeypatch.setattr(IRuntimeCache, "serialize", serialize_and_close)
        saving = threading.Thread(target=module.engine.save_runtime_cache, daemon=True)
        saving.start()
        saving.join(SECONDS_UNTIL_DEADLOCK)
        assert not saving.is_alive()
        assert module.engine.closed
        assert cache.read_bytes() == GOOD + b"k"

    def test_the_end_of_the_process_saves(self, cache: Path) -> None:
        code = """
import sys
from pathlib import Path
from tests.runtime.played_rtx import is_right, load, played_backend
from trt_rt import RuntimeSettings
module = load(played_backend(), RuntimeSettings(runtime_cache=Path(sys.argv[1])))
assert is_right(module)
"""
        assert isolated.printed_by(code, cache) == ""
        assert cache.read_bytes() == GOOD + b"k"


class TestContract:
    """What is played here has the real bindings' members and signatures."""

    @pytest.fixture
    def api(self) -> Any:
        status = trt_rt.backends()["tensorrt_rtx"]
        if not status.installed:
            pytest.skip(status.reason)
        return trt_rt.backend.load("tensorrt_rtx").api

    @pytest.mark.parametrize("played", [IRuntimeCache, IRuntimeConfig])
    def test_methods_have_the_real_parameters(self, played: type, api: Any) -> None:
        real = members(getattr(api, played.__name__))
        methods = {name: method for name, method in vars(played).items() if not name.startswith("_")}
        assert methods
        for name, method in methods.items():
            own = [parameter.name for parameter in inspect.signature(method).parameters.values()][1:]
            assert own in [overload["parameters"] for overload in real[name]["overloads"]], name

    def test_strategies_are_settable_properties(self, api: Any) -> None:
        real = members(api.IRuntimeConfig)
        for name in ("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"):
            assert real[name]["kind"] == "property"
            assert real[name]["settable"]

    @pytest.mark.parametrize("played", [CudaGraphStrategy, DynamicShapesKernelSpecializationStrategy])
    def test_strategies_have_the_real_members(self, played: type[enum.Enum], api: Any) -> None:
        assert set(getattr(api, played.__name__).__members__) == set(played.__members__)

    def test_a_context_is_made_with_a_config(self, api: Any) -> None:
        overloads = members(api.ICudaEngine)["create_execution_context"]["overloads"]
        assert ["runtime_config"] in [overload["parameters"] for overload in overloads]
        assert "create_runtime_config" in members(api.ICudaEngine)
        assert trt_rt.backend.load("tensorrt_rtx").require_runtime_settings() is None
