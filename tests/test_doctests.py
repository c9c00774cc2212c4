"""The examples in the docstrings of the public API run, and print what they promise."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim

import trt_rt
import trt_rt.runtime
from tests.reference import plans
from tests.runtime.played_rtx import played_backend
from trt_rt import Engine, TRTModule, reference

_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

_NEED_AN_EXAMPLE = [
    trt_rt.Engine,
    trt_rt.RuntimeSettings,
    trt_rt.TRTModule,
    trt_rt.build,
    trt_rt.enable_cudagraphs,
    trt_rt.enable_nvtx,
    trt_rt.enable_output_allocator,
    trt_rt.enable_pre_allocated_outputs,
    trt_rt.enable_profiling,
    trt_rt.explain,
    trt_rt.optimization_profile,
    trt_rt.profile,
    trt_rt.refit,
    trt_rt.runtime_config,
    trt_rt.set_cudagraphs_mode,
    trt_rt.set_multi_device_safe_mode,
    trt_rt.use_dynamically_allocated_resources,
    trt_rt.weight_streaming,
]


class Network(torch.nn.Module):
    """The network of the examples: images to 1000 scores."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3, stride=8)
        self.linear = torch.nn.Linear(4, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.convolution(x)).mean(dim=(2, 3)))


def _files() -> list[str]:
    """The modules of the package whose text has an example. The others are not imported."""
    names = [module.name for module in pkgutil.walk_packages(trt_rt.__path__, "trt_rt.")]
    return [name for name in names if not name.endswith("__main__") and _has_example(name)]


def _has_example(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    origin = str(spec and spec.origin)
    return origin.endswith(".py") and ">>> " in Path(origin).read_text()


class _Finder(doctest.DocTestFinder):
    """Also finds the examples of decorated functions."""

    def _from_module(self, module: Any, object: Any) -> bool:
        found: bool = super()._from_module(module, inspect.unwrap(object))  # type: ignore[misc]
        return found


def _examples() -> list[Any]:
    finder = _Finder(exclude_empty=True)
    found = [test for name in _files() for test in finder.find(importlib.import_module(name), name)]
    return [pytest.param(test, id=test.name) for test in found if test.examples]


@pytest.fixture(scope="module")
def engine() -> Engine:
    sizes = ((1, 3, 224, 224), (1, 3, 224, 224), (8, 3, 224, 224))
    plan = reference.build(
        Network().eval(),
        (torch.zeros(2, 3, 224, 224),),
        dynamic_shapes=({0: Dim("batch", min=1, max=8)},),
        profiles=[{"x": sizes}, {"x": sizes}],
        input_names=["x"],
        streamable_weights=True,
        refittable=True,
    )
    return Engine.from_bytes(plan, device="cpu")


@pytest.fixture
def names(request: pytest.FixtureRequest, engine: Engine) -> dict[str, Any]:
    """What the examples may use without saying where it is from."""
    public = {name: getattr(trt_rt, name) for name in trt_rt.__all__}
    public |= {name: getattr(trt_rt.runtime, name) for name in trt_rt.runtime.__all__}
    values = {
        "torch": torch,
        "trt_rt": trt_rt,
        "network": Network(),
        "engine": engine,
        "module": TRTModule(engine),
        "x": torch.randn(8, 3, 224, 224),
    }
    if "runtime_config" in request.node.name:
        module = TRTModule(plans.affine(), backend=played_backend(), device="cpu")
        values |= {"module": module, "x": torch.randn(3, 7)}
    return public | values


@pytest.mark.parametrize("example", _examples())
def test_an_example_prints_what_it_promises(
    example: doctest.DocTest,
    names: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    example.globs = {**example.globs, **names}
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=_FLAGS).run(example, out=report.append)
    assert result.failed == 0, "".join(report)
    assert result.attempted > 0


@pytest.mark.parametrize("public", _NEED_AN_EXAMPLE, ids=lambda public: public.__name__)
def test_what_people_start_with_has_an_example(public: Any) -> None:
    documentation = inspect.getdoc(public) or ""
    assert "Examples\n--------\n>>> " in documentation
