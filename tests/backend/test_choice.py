"""`trt_rt.backends`, and the choice of a backend for a plan."""

from __future__ import annotations

import subprocess
import sys

import pytest

import trt_rt
from tests.backend.foreign_plans import RTX_PLAN, TENSORRT_PLAN, UNKNOWN_PLAN
from tests.patience import SECONDS_UNTIL_DEADLOCK
from tests.reference import plans
from trt_rt import BackendError, Engine, PlanError, TRTModule
from trt_rt.backend import BUILDERS, NAMES, Backend, first, load


def test_every_backend_is_described() -> None:
    status = trt_rt.backends()
    assert tuple(status) == NAMES
    for name, backend in status.items():
        assert backend.name == name
        assert (backend.version is not None) == backend.installed
        assert backend.installed or not (backend.can_build or backend.can_run)
        if not backend.can_run:
            assert backend.reason
        if backend.reason:
            assert backend.reason.rstrip().endswith((".", ")"))
            assert " " in backend.reason


def test_the_reference_backend_is_always_here() -> None:
    reference = trt_rt.backends()["reference"]
    assert (reference.installed, reference.can_build, reference.can_run) == (True, True, True)
    assert reference.reason == ""


def test_a_backend_that_is_missing_says_how_to_get_it() -> None:
    missing = [status for status in trt_rt.backends().values() if not status.installed]
    if not missing:
        pytest.skip("needs a backend that is not installed; all five are")
    for status in missing:
        assert "pip install" in status.reason
        with pytest.raises(BackendError) as error:
            Engine.from_bytes(UNKNOWN_PLAN, backend=status.name)
        assert repr(status.name) in str(error.value)
        assert "pip install" in str(error.value)


def test_looking_at_backends_twice_gives_the_same() -> None:
    assert trt_rt.backends() == trt_rt.backends()


def test_looking_at_backends_prints_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import trt_rt; trt_rt.backends()"],
        capture_output=True,
        text=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_auto_takes_the_reference_backend_for_its_plans() -> None:
    assert Engine.from_bytes(plans.affine()).backend == "reference"
    assert TRTModule(plans.affine(), backend="auto").engine.backend == "reference"


def test_a_named_backend() -> None:
    assert Engine.from_bytes(plans.affine(), backend="reference").backend == "reference"


@pytest.mark.parametrize("make", [Engine.from_bytes, TRTModule])
def test_a_name_that_no_backend_has(make) -> None:
    for plan in (UNKNOWN_PLAN, plans.affine()):
        with pytest.raises((BackendError, PlanError)) as error:
            make(plan, backend="tensorflow")
        assert "'tensorflow'" in str(error.value)
        assert "reference" in str(error.value)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx"])
def test_a_reference_plan_goes_to_no_other_backend(backend: str) -> None:
    with pytest.raises(PlanError, match="reference"):
        Engine.from_bytes(plans.affine(), backend=backend)


@pytest.mark.parametrize("plan", [TENSORRT_PLAN, RTX_PLAN], ids=["TensorRT", "TensorRT-RTX"])
def test_the_reference_backend_takes_no_foreign_plan(plan: bytes) -> None:
    with pytest.raises(PlanError, match="TensorRT"):
        Engine.from_bytes(plan, backend="reference")


@pytest.mark.parametrize("plan", [TENSORRT_PLAN, RTX_PLAN], ids=["TensorRT", "TensorRT-RTX"])
def test_a_foreign_plan_never_becomes_something_else(plan: bytes) -> None:
    # Nothing here can run them: there is no backend, no GPU, or they are refused as the empty plans they are.
    with pytest.raises((BackendError, PlanError)):
        Engine.from_bytes(plan)


def test_a_plan_for_rtx_and_a_plan_for_tensorrt_are_told_apart() -> None:
    with pytest.raises(PlanError, match=r"TensorRT-RTX plan of version 1\.7\.1\.116"):
        Engine.from_bytes(RTX_PLAN, backend="tensorrt")
    with pytest.raises(PlanError, match="tensorrt_lean"):
        Engine.from_bytes(TENSORRT_PLAN, backend="tensorrt_rtx")


def test_auto_does_not_guess() -> None:
    with pytest.raises(PlanError, match="unknown kind"):
        Engine.from_bytes(UNKNOWN_PLAN)


def test_a_named_backend_decides_about_an_unknown_plan() -> None:
    with pytest.raises(PlanError, match=r"It says: .*not a reference plan"):
        Engine.from_bytes(UNKNOWN_PLAN, backend="reference")


def test_a_module_of_ones_own_as_backend() -> None:
    mine = Backend("mine", trt_rt.backend.load("reference").api, runs_on_cpu=True)
    engine = Engine.from_bytes(plans.affine(), backend=mine)
    assert engine.backend is mine
    assert Engine.from_bytes(plans.affine(), backend=engine.backend).backend is mine
    assert "mine" in repr(engine)


def test_a_backend_that_needs_a_gpu_says_so_where_there_is_none() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    needs_gpu = Backend("picky", trt_rt.backend.load("reference").api)
    for device in (None, "cpu", "cuda"):
        with pytest.raises(BackendError, match=r"GPU|NVIDIA"):
            Engine.from_bytes(plans.affine(), backend=needs_gpu, device=device)


def test_first_takes_the_first_without_an_objection() -> None:
    objections = {"tensorrt": "too old", "tensorrt_rtx": "", "reference": ""}
    choice = first(objections.__getitem__, objections)
    assert choice.name == "tensorrt_rtx"
    assert choice.passed_over == {"tensorrt": "too old"}
    assert not choice.missing


def test_first_with_none_that_serves() -> None:
    def why_not(name: str) -> str:
        if name == "tensorrt":
            raise BackendError("it is not installed")
        return "too old"

    choice = first(why_not)
    assert choice.name is None
    assert choice.missing == {"tensorrt"}
    assert choice.passed_over == {**dict.fromkeys(NAMES, "too old"), "tensorrt": "it is not installed"}
    assert list(choice.passed_over) == list(NAMES)


def test_builders_are_the_backends_that_have_one() -> None:
    for name in NAMES:
        try:
            assert load(name).has_builder == (name in BUILDERS)
        except BackendError:
            continue  # it is not installed here
