"""What is refused before a Runtime is touched, and what a refusal says."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from tests.backend.foreign_plans import RTX_PLAN, TENSORRT_PLAN, plan_of
from tests.factories.builders import build_plan
from tests.reference import plans
from trt_rt import BackendError, Engine, PlanError, reference
from trt_rt.backend import Backend, BackendStatus, backends, choice, choose_backend, identify_plan, load
from trt_rt.backend.dispatch import DispatchRuntime
from trt_rt.backend.lean import LeanRuntime
from trt_rt.backend.rtx import TensorRTRTX
from trt_rt.backend.tensorrt import TensorRT
from trt_rt.reference.plan_container import FORMAT_VERSION


def bindings(version: str, **members: Any) -> ModuleType:
    """TensorRT's Python API under another version, with members of one's own."""
    module = ModuleType("bindings")
    vars(module).update({name: getattr(reference, name) for name in reference.__all__})
    vars(module).update({"__version__": version, **members})
    return module


class Refusing:
    """A Runtime that refuses every plan, and keeps what it was given."""

    made: list[Refusing]

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.engine_host_code_allowed = False
        Refusing.made.append(self)

    def deserialize_cuda_engine(self, plan: Any) -> None:
        self.logger.log(reference.ILogger.Severity.ERROR, "I do not like it")


@pytest.fixture
def refusing() -> type[Refusing]:
    Refusing.made = []
    return Refusing


class TestKinds:
    @pytest.mark.parametrize(
        ("plan", "backend", "version"),
        [
            (TENSORRT_PLAN, "tensorrt", (10, 3, 0, 26)),
            (RTX_PLAN, "tensorrt_rtx", (1, 7, 1, 116)),
            (plans.affine(), "reference", (FORMAT_VERSION,)),
        ],
        ids=["TensorRT", "TensorRT-RTX", "reference"],
    )
    def test_the_first_bytes_tell_kind_and_version(
        self, plan: bytes, backend: str, version: tuple[int, ...]
    ) -> None:
        kind = identify_plan(plan)
        assert kind.backends[0] == backend
        assert kind.version == version
        assert kind.version_text == ".".join(map(str, version))

    def test_a_plan_that_tensorrt_rtx_has_built(self, rtx: Backend) -> None:
        plan = build_plan("relu", "tensorrt_rtx")
        kind = identify_plan(plan)
        assert kind.backends == ("tensorrt_rtx",)
        assert kind.version_text == rtx.version
        assert choose_backend(memoryview(plan), "auto", "relu") is rtx

    def test_a_layout_that_is_not_known_has_no_version(self) -> None:
        plan = bytearray(TENSORRT_PLAN)
        plan[4] = 1  # the serialization version
        assert identify_plan(bytes(plan)).version == ()

    def test_a_truncated_plan_of_tensorrt_rtx_is_refused_anywhere(self, rtx: Backend) -> None:
        plan = build_plan("relu", "tensorrt_rtx")
        for length in (0, 1, 4, 5, 27, 28, 64, len(plan) // 2, len(plan) - 1):
            with pytest.raises(PlanError, match="'cut'"):
                Engine.from_bytes(plan[:length], name="cut")

    @pytest.mark.parametrize("length", [4, 27])
    def test_a_truncated_plan_of_tensorrt_is_refused(self, length: int) -> None:
        with pytest.raises(PlanError, match="truncated"):
            Engine.from_bytes(TENSORRT_PLAN[:length])

    def test_a_length_that_no_file_has(self) -> None:
        with pytest.raises(PlanError, match=r"18,446,744,073,709,551,615 bytes, but has only 64"):
            Engine.from_bytes(plan_of(b"vtrt", 1, 7, 1, 116, length=2**64 - 1))


class TestVersions:
    @pytest.mark.parametrize("adapter", [TensorRT, LeanRuntime, DispatchRuntime])
    def test_a_plan_of_a_newer_tensorrt(self, adapter: type[Backend]) -> None:
        backend = adapter("tensorrt_lean", bindings("10.16.1.11"))
        plan = memoryview(plan_of(b"ftrt", 10, 16, 2, 1))
        with pytest.raises(PlanError) as error:
            choose_backend(plan, backend, "new")
        for part in ("'new'", "of version 10.16.2.1", "the older 10.16.1", "Install", "or build the plan"):
            assert part in str(error.value)

    @pytest.mark.parametrize("version", [(10, 16, 1, 99), (10, 3, 0, 26), (8, 6, 1, 6)])
    def test_tensorrt_decides_about_plans_of_its_own_version_and_of_older_ones(
        self, version: tuple[int, ...]
    ) -> None:
        backend = TensorRT("tensorrt", bindings("10.16.1.11"))
        assert choose_backend(memoryview(plan_of(b"ftrt", *version)), backend, "old") is backend

    @pytest.mark.parametrize("version", [(1, 6, 0, 120), (1, 8, 0, 1)])
    def test_a_plan_of_another_release_of_tensorrt_rtx(self, version: tuple[int, ...]) -> None:
        backend = TensorRTRTX("tensorrt_rtx", bindings("1.7.1.116"))
        with pytest.raises(
            PlanError, match=r"is 1\.7\.1, and a release .* only its own plans\. Build .* again"
        ):
            choose_backend(memoryview(plan_of(b"vtrt", *version)), backend, "other")

    def test_the_library_counts_and_not_the_bindings(self, rtx: Backend) -> None:
        assert rtx.library is not None
        assert rtx.release == rtx.library.version
        assert ".".join(map(str, rtx.release)) == rtx.version.rpartition(".")[0]

    def test_auto_takes_the_first_backend_that_runs_the_version(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = {
            "tensorrt": TensorRT("tensorrt", bindings("10.3.0.26")),
            "tensorrt_lean": LeanRuntime("tensorrt_lean", bindings("11.4.0.106")),
        }

        def load_fake(name: str) -> Backend:
            if name not in here:
                raise BackendError(f"there is no {name}.")
            return here[name]

        monkeypatch.setattr(choice, "load", load_fake)
        for version, name in (((10, 3, 0, 26), "tensorrt"), ((11, 0, 0, 1), "tensorrt_lean")):
            chosen = choose_backend(memoryview(plan_of(b"ftrt", *version)), "auto", "engine")
            assert chosen is here[name]
        with pytest.raises(PlanError, match=r"older 10\.3\.0, .* older 11\.4\.0"):
            choose_backend(memoryview(plan_of(b"ftrt", 12, 0, 0, 1)), "auto", "engine")
        here.clear()
        with pytest.raises(
            BackendError, match=r"no backend that runs it is installed: there is no tensorrt\."
        ):
            choose_backend(memoryview(TENSORRT_PLAN), "auto", "engine")


class TestRefusals:
    @pytest.mark.parametrize("name", ["tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx"])
    def test_without_a_gpu_no_runtime_is_made(self, name: str, refusing: type[Refusing]) -> None:
        if torch.cuda.is_available():
            pytest.skip("needs a machine without a GPU")
        adapter = {
            "tensorrt": TensorRT,
            "tensorrt_lean": LeanRuntime,
            "tensorrt_dispatch": DispatchRuntime,
            "tensorrt_rtx": TensorRTRTX,
        }[name]
        version, plan = ("1.7.1.116", RTX_PLAN) if name == "tensorrt_rtx" else ("10.16.1", TENSORRT_PLAN)
        backend = adapter(name, bindings(version, Runtime=refusing))
        for device in (None, "cuda", "cuda:1", "cpu"):
            with pytest.raises(BackendError, match=rf"'{name}' .*(GPU|NVIDIA)"):
                Engine.from_bytes(plan, backend=backend, device=device)
        assert not refusing.made

    @pytest.mark.parametrize("name", ["tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx"])
    def test_real_bindings_refuse_to_start_without_a_gpu(self, name: str) -> None:
        if torch.cuda.is_available():
            pytest.skip("needs a machine without a GPU")
        try:
            load(name)
        except BackendError as error:
            pytest.skip(str(error))
        plan = RTX_PLAN if name == "tensorrt_rtx" else TENSORRT_PLAN
        with pytest.raises(BackendError, match="cannot run engines on cuda:0: "):
            Engine.from_bytes(plan, backend=name)

    def test_a_refusal_says_what_it_is_what_is_here_and_what_to_do(self, refusing: type[Refusing]) -> None:
        backend = LeanRuntime("tensorrt_lean", bindings("10.16.1.11", Runtime=refusing))
        with pytest.raises(PlanError) as error:
            backend.deserialize(backend.runtime(), TENSORRT_PLAN, "mine")
        for part in (
            "engine 'mine'",
            "It says: I do not like it",
            "a TensorRT plan of version 10.3.0.26",
            "TensorRT's lean runtime 10.16.1",
            "Build the plan with this version for this GPU",
            "engine_host_code_allowed=True",
        ):
            assert part in str(error.value)

    def test_host_code_is_allowed_only_where_it_is_asked_for(self, refusing: type[Refusing]) -> None:
        backend = Backend("mine", bindings("10.16.1", Runtime=refusing), runs_on_cpu=True)
        for options in ({}, {"engine_host_code_allowed": False}, {"engine_host_code_allowed": True}):
            with pytest.raises(PlanError, match="I do not like it"):
                Engine.from_bytes(TENSORRT_PLAN, backend=backend, **options)
        assert [runtime.engine_host_code_allowed for runtime in refusing.made] == [False, False, True]

    @pytest.mark.parametrize("plan", [TENSORRT_PLAN, RTX_PLAN, plans.affine()])
    def test_an_adapter_is_given_no_plan_of_another_kind(self, plan: bytes) -> None:
        mine = identify_plan(plan).backends
        for name, adapter in {"tensorrt": TensorRT, "tensorrt_rtx": TensorRTRTX}.items():
            if name not in mine:
                with pytest.raises(PlanError, match=f"which backend '{name}' cannot run"):
                    Engine.from_bytes(plan, backend=adapter(name, bindings("1.7.1.116")))


class TestDifferences:
    @pytest.mark.parametrize(
        ("description", "tensor_format"),
        [
            ("Row major linear FP32 format (kLINEAR)", "LINEAR"),
            ("Row-major linear INT32 format", "LINEAR"),
            ("Channel major FP16 format where C % 8 == 0", "Channel major FP16 format where C % 8 == 0"),
            (
                "Two wide channel vectorized row major FP16 format",
                "Two wide channel vectorized row major FP16 format",
            ),
        ],
    )
    def test_bindings_without_tensor_formats(self, description: str, tensor_format: str) -> None:
        class LeanEngine:
            def get_tensor_format(self, name: str) -> None:
                raise TypeError("Unable to convert function return value to a Python type!")

            def get_tensor_format_desc(self, name: str) -> str:
                return description

        assert LeanRuntime("lean", bindings("10.16.1")).tensor_format(LeanEngine(), "x") == tensor_format

    def test_bindings_without_an_inspector(self) -> None:
        with pytest.raises(BackendError, match=r"lean 10\.16\.1 has no engine inspector"):
            LeanRuntime("lean", bindings("10.16.1")).inspect(object())

    def test_rtx_says_which_gpus_it_does_not_run_on(self) -> None:
        backend = TensorRTRTX("tensorrt_rtx", bindings("1.7.1"))
        assert "does not run on compute capability 9.0" in backend.why_not_on((9, 0))
        assert backend.why_not_on((8, 9)) == backend.why_not_on((12, 0)) == ""

    def test_a_library_older_than_its_bindings(self) -> None:
        class Library:
            path = "/opt/libnvinfer.so.10"
            version = (10, 13, 3)

        backend = TensorRT("tensorrt", bindings("10.16.1.11"))
        backend.library = Library()
        with pytest.raises(
            BackendError, match=r"10\.16\.1\.11.* older version 10\.13\.3 \(/opt/libnvinfer\.so\.10\)"
        ):
            backend.check_library()
        backend.api.__version__ = "10.13.3.9"
        backend.check_library()

    def test_status_of_what_is_installed_names_the_library(self) -> None:
        for status in backends().values():
            assert isinstance(status, BackendStatus)
            assert (status.library is not None) == (status.installed and status.name != "reference")


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.mark.parametrize("plan", [b"", bytes(range(256)) * 20, RTX_PLAN, TENSORRT_PLAN + bytes(5000)])
    @pytest.mark.parametrize("name", ["tensorrt_lean", "tensorrt_dispatch"])
    def test_what_a_runtime_refuses_is_an_exception_with_its_reason(self, name: str, plan: bytes) -> None:
        try:
            backend = load(name)
        except BackendError as error:
            pytest.skip(str(error))
        device = torch.device("cuda", 0)
        backend.require(device)
        with pytest.raises(PlanError) as error:
            backend.deserialize(backend.runtime(), plan, "refused")
        assert "no reason" not in str(error.value)
