"""trt_rt.compile: what it takes, what it refuses, and what the program then is."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import trt_rt
from trt_rt.errors import BackendError, CompileError, InputTypeError, InputValueError
from trt_rt.module.find_engines import find_engines


class Split(nn.Module):
    """Two linear layers with an operator between them that no engine runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
        self.second = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.fft.fft(self.first(x)).real)


def example(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 4)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Split().eval()


def compiled(model: Any, *inputs: Any, **settings: Any) -> Any:
    return trt_rt.compile(model, inputs=inputs or (example(),), backend="reference", **settings)


def check(program: nn.Module, model: nn.Module, *batches: int) -> None:
    for batch in batches:
        x = example(batch)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x))


def test_an_exported_program_is_compiled(model: nn.Module) -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    exported = torch.export.export(model, (example(),), dynamic_shapes=({0: batch},))
    program = trt_rt.compile(exported, backend="reference")
    check(program, model, 1, 3, 8)


def test_a_graph_module_is_compiled(model: nn.Module) -> None:
    check(compiled(torch.fx.symbolic_trace(model)), model, 3)


def test_input_says_which_dimensions_vary(model: nn.Module) -> None:
    image = trt_rt.Input(min_shape=(1, 4), opt_shape=(1, 4), max_shape=(8, 4))
    program = compiled(model, image)
    check(program, model, 1, 2, 8)
    (profile,) = program.engine_0.engine.inputs[0].profiles
    assert (profile.min, profile.opt, profile.max) == ((1, 4), (1, 4), (8, 4))
    with pytest.raises(InputValueError, match="9"):
        program(example(9))


class _TorchTensorRTInput:
    """What Torch-TensorRT 2.11's class has: a shape or a dict of shapes, and a dtype of its own."""

    def __init__(self, shape: Any, *, is_shape_tensor: bool = False) -> None:
        self.shape = shape
        self.name = "x"
        self.is_shape_tensor = is_shape_tensor
        self.dtype = self

    def to(self, kind: type, *, use_default: bool) -> torch.dtype:
        assert kind is torch.dtype
        assert use_default
        return torch.float32


_TorchTensorRTInput.__name__, _TorchTensorRTInput.__module__ = "Input", "torch_tensorrt._Input"


@pytest.mark.parametrize("shape", [(), (4,)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_losses_keep_the_shape_of_their_results(reduction: str, shape: tuple[int, ...]) -> None:
    class Losses(nn.Module):
        def forward(self, x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            entropy = nn.functional.cross_entropy(x * 2, target, reduction=reduction)
            loss = nn.functional.nll_loss(x.log_softmax(1), target, reduction=reduction)
            return torch.relu(entropy * 2 + 1) - 3, torch.relu(loss * 2 + 1) - 3

    def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(rows, 5, *shape), torch.randint(0, 5, (rows, *shape))

    rows = torch.export.Dim("rows", min=1, max=8)
    program = trt_rt.compile(
        Losses(), inputs=inputs(3), dynamic_shapes=({0: rows}, {0: rows}), backend="reference", cache_dir=None
    )
    for count in (3, 1, 8):
        x, target = inputs(count)
        torch.testing.assert_close(program(x, target), Losses()(x, target))


def test_inputs_of_torch_tensorrt_are_inputs(model: nn.Module) -> None:
    shapes = {"min_shape": (1, 4), "opt_shape": (3, 4), "max_shape": (8, 4)}
    program = trt_rt.compile(model, inputs=[_TorchTensorRTInput(shapes)], backend="reference")
    for size in (1, 8):
        x = torch.randn(size, 4)
        torch.testing.assert_close(program(x), model(x).detach())
    (x,) = (
        trt_rt.compile(model, inputs=[_TorchTensorRTInput((3, 4))], backend="reference", dryrun=True)
        .engines[0]
        .inputs
    )
    assert x.shape == (3, 4)
    with pytest.raises(CompileError, match=r"give a torch\.Tensor with an example"):
        trt_rt.compile(model, inputs=[_TorchTensorRTInput((3,), is_shape_tensor=True)], backend="reference")


def test_marks_of_dynamo_say_which_dimensions_vary(model: nn.Module) -> None:
    x = example()
    torch._dynamo.mark_dynamic(x, 0, min=2, max=8)
    check(compiled(model, x), model, 2, 8)


def test_arg_inputs_are_inputs(model: nn.Module) -> None:
    program = trt_rt.compile(model, arg_inputs=(example(),), backend="reference")
    check(program, model, 3)


def test_profiles_go_to_every_engine(model: nn.Module) -> None:
    profiles = [{"x": ((1, 4), (2, 4), (4, 4))}, {"x": ((4, 4), (8, 4), (16, 4))}]
    batch = torch.export.Dim("batch", min=1, max=16)
    program = compiled(model, dynamic_shapes=({0: batch},), profiles=profiles)
    for engine in find_engines(program):
        limits = [(one.min[0], one.opt[0], one.max[0]) for one in engine.engine.inputs[0].profiles]
        assert limits == [(1, 2, 4), (4, 8, 16)]


def test_an_input_may_be_named_as_a_builtin_is() -> None:
    batch = torch.export.Dim("batch", min=1, max=16)
    program = compiled(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval(),
        dynamic_shapes=({0: batch},),
        profiles=[{"input": ((1, 4), (2, 4), (4, 4))}],
    )
    assert program.engine_0.engine.inputs[0].profiles[0].max == (4, 4)


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ([{"y": ((1, 4), (2, 4), (4, 4))}], "'y', which is no input"),
        ([{"x": ((4, 4), (2, 4), (4, 4))}], "breaks min <= opt <= max"),
        ([{"x": ((1, 4), (2, 4), (32, 4))}], "right from 1 to 16"),
        ([{"x": ((1,), (2,), (4,))}], "2 dimensions"),
        ([{}], "no range for input 'x'"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused(model: nn.Module, profiles: Any, message: str) -> None:
    batch = torch.export.Dim("batch", min=1, max=16)
    with pytest.raises(CompileError, match=message):
        compiled(model, dynamic_shapes=({0: batch},), profiles=profiles)


def test_precision_casts_the_engines(model: nn.Module) -> None:
    program = compiled(model.first, precision="bf16", torch_executed_ops=["aten.relu"], min_block_size=1)
    outputs = {tensor.dtype for engine in find_engines(program) for tensor in engine.engine.outputs}
    assert torch.bfloat16 in outputs
    assert program(example()).dtype is torch.float32


def test_the_operators_that_the_user_names_stay_in_pytorch(model: nn.Module) -> None:
    for name in (torch.ops.aten.relu, torch.ops.aten.relu.default, "aten.relu", "aten::relu"):
        partition = compiled(model, torch_executed_ops=[name], dryrun=True)
        named = [step for step in partition.torch_operators if "torch_executed_ops" in step.reason]
        assert [step.operator for step in named] == ["aten.relu.default"] * 2


@pytest.mark.parametrize("wanted", ["second", nn.Linear])
def test_the_modules_that_the_user_names_stay_in_pytorch(model: nn.Module, wanted: Any) -> None:
    program = compiled(model, torch_executed_modules=[wanted], min_block_size=1)
    named = [s for s in program.partition.torch_operators if "torch_executed_modules" in s.reason]
    assert [step.operator for step in named] == (
        ["aten.linear.default", "aten.relu.default", "aten.linear.default"]
        if wanted == "second"
        else ["aten.linear.default"] * 4
    )
    check(program, model, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"torch_executed_ops": ["aten.rleu"]}, "did you mean aten.relu"),
        ({"torch_executed_ops": ["aten.relu.tensor"]}, "did you mean aten.relu.default"),
        ({"torch_executed_modules": ["secnd"]}, "did you mean 'second'"),
        ({"workspace_byte": 1}, "did you mean 'workspace_bytes'"),
        ({"min_block_sizes": 1}, "did you mean 'min_block_size'"),
        ({"optimization_level": 9}, "from 0 to 5"),
        ({"min_block_size": 0}, "at least 1"),
        ({"min_block_size": True}, "at least 1"),
        ({"truncate_double": "yes"}, "True or False"),
        ({"arg_inputs": (torch.zeros(3, 4),)}, "two names"),
        ({"cache_dir": 3}, "the path of a folder"),
        ({"profiles": {"x": ((1, 4), (2, 4), (4, 4))}}, "a list of one dict"),
        ({"precision": "int8"}, "quantize the model"),
        ({"kwarg_inputs": [torch.zeros(3, 4)]}, "kwarg_inputs is a list"),
    ],
)
def test_a_wrong_setting_names_the_right_one(
    model: nn.Module, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(CompileError, match=message):
        compiled(model, **settings)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "needs either shape"),
        ({"shape": (1,), "min_shape": (1,)}, "needs either shape"),
        ({"min_shape": (4,), "opt_shape": (2,), "max_shape": (8,)}, "breaks min <= opt <= max: 4, 2, 8"),
        ({"min_shape": (1,), "opt_shape": (2, 2), "max_shape": (8, 2)}, "different rank"),
    ],
)
def test_an_input_that_contradicts_itself_is_refused(shapes: dict[str, Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        trt_rt.Input(name="image", **shapes)


def test_what_cannot_be_exported_is_refused_with_its_line() -> None:
    class DependsOnData(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:  # the culprit
                return x + 1
            return x - 1

    with pytest.raises(CompileError, match=r"cannot export DependsOnData.*line \d+, in forward.*the culprit"):
        compiled(DependsOnData())


def test_inputs_are_needed_and_only_by_modules(model: nn.Module) -> None:
    with pytest.raises(CompileError, match="example inputs are needed"):
        trt_rt.compile(model, backend="reference")
    exported = torch.export.export(model, (example(),))
    with pytest.raises(CompileError, match="has its own inputs"):
        trt_rt.compile(exported, inputs=(example(),), backend="reference")
    with pytest.raises(CompileError, match="cannot compile a int"):
        trt_rt.compile(3, inputs=(example(),), backend="reference")  # type: ignore[call-overload]


def test_a_dimension_without_an_end_is_refused(model: nn.Module) -> None:
    with pytest.raises(CompileError, match="dimension 0 of input 'x' is dynamic and has no largest size"):
        compiled(model, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))


def test_a_dry_run_builds_nothing(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_rt.program.part_builder.build_plan", lambda *_, **__: pytest.fail("built"))
    partition = compiled(model, dryrun=True)
    assert isinstance(partition, trt_rt.compiled.Partition)
    assert [engine.name for engine in partition.engines] == ["engine_0", "engine_1"]


def test_full_compilation_can_be_required(model: nn.Module) -> None:
    with pytest.raises(CompileError, match=r"PyTorch would run aten.fft_fft.default \[File .*complex64"):
        compiled(model, require_full_compilation=True)
    compiled(model.first, require_full_compilation=True)


def test_a_part_that_the_builder_refuses_goes_back_to_pytorch(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trt_rt.program import part_builder

    build = part_builder.build_plan
    built: list[object] = []

    def refuse_the_first(*args: Any, **kwargs: Any) -> Any:
        built.append(args)
        if len(built) == 1:
            raise CompileError("too hard")
        return build(*args, **kwargs)

    monkeypatch.setattr(part_builder, "build_plan", refuse_the_first)
    program = compiled(model)
    assert len(find_engines(program)) == 1
    reasons = {step.reason for step in program.partition.torch_operators}
    assert "the builder refuses its part: too hard" in reasons
    check(program, model, 3)


def test_small_parts_stay_in_pytorch_unless_they_are_all(model: nn.Module) -> None:
    partition = compiled(model, min_block_size=4, dryrun=True)
    assert not partition.engines
    assert "its part has 3 operators, and min_block_size is 4" in str(partition)
    assert len(compiled(nn.ReLU(), min_block_size=4, dryrun=True).engines) == 1


def test_a_program_without_engines_is_right_and_warned_about(model: nn.Module) -> None:
    with pytest.warns(UserWarning, match="no part of Split runs in an engine"):
        program = compiled(model, min_block_size=4)
    check(program, model, 3)


def test_a_backend_that_cannot_run_here_is_refused_before_anything_is_built(model: nn.Module) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="the TensorRT-RTX wheels are not installed")
    with pytest.raises(BackendError, match=r"cannot run engines on cpu|runs engines on CUDA devices"):
        trt_rt.compile(model, inputs=(example(),), backend="tensorrt_rtx")


def test_on_a_cpu_auto_is_the_reference(model: nn.Module) -> None:
    assert trt_rt.compile(model, inputs=(example(),)).partition.backend == "reference"


# What a program is.


def test_the_model_is_not_changed(model: nn.Module) -> None:
    before = copy.deepcopy(model.state_dict())
    compiled(model)
    torch.testing.assert_close(model.state_dict(), before)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_every_control_finds_the_engines(model: nn.Module) -> None:
    program = compiled(model)
    engines = find_engines(program)
    assert [engine.name for engine in engines] == ["engine_0", "engine_1"]
    x = example()
    wanted = program(x)
    with trt_rt.enable_pre_allocated_outputs(program):
        torch.testing.assert_close(program(x), wanted)
    with trt_rt.enable_cudagraphs(program) as graphed:
        assert isinstance(graphed, trt_rt.WholeGraph)  # an operator of PyTorch stands between the engines
        for _ in range(3):
            torch.testing.assert_close(graphed(x), wanted)


def test_a_whole_graph_does_not_look_at_weights(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    init = trt_rt.WholeGraph.__init__

    def noting(self: Any, *args: Any, frozen: bool = False, **keywords: Any) -> None:
        seen.append(frozen)
        init(self, *args, frozen=frozen, **keywords)

    monkeypatch.setattr(trt_rt.WholeGraph, "__init__", noting)
    program = compiled(model)
    with trt_rt.enable_cudagraphs(program) as graphed:
        graphed(example())
    assert seen == [True]


def test_the_graph_of_one_engine_is_that_engine_s_own(model: nn.Module) -> None:
    program = compiled(model.first)
    with trt_rt.enable_cudagraphs(program) as graphed:
        assert graphed is program
        torch.testing.assert_close(graphed(x := example()), program(x))
        assert program.engine_0.stats()["captures"] == 1


def test_the_call_is_straight_line_code(model: nn.Module) -> None:
    code = compiled(model).code
    compile(code, "program", "exec")
    assert "pytree" not in code
    assert "self" not in code
    assert code.count("engine_") >= 2


def test_arguments_that_no_engine_checks_are_checked() -> None:
    class Fft(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft(x).real.mul(2).add(1).relu()

    batch = torch.export.Dim("batch", min=2, max=8)
    program = compiled(Fft(), dynamic_shapes=({0: batch},))
    program(example(8))
    with pytest.raises(InputValueError, match=r"x: .* shape \(2 to 8, 4\), and this is \(9, 4\)"):
        program(example(9))
    with pytest.raises(InputTypeError, match=r"float32, and this is torch.float64"):
        program(example().double())
    static = compiled(Fft())
    with pytest.raises(InputValueError, match=r"shape \(3, 4\)"):
        static(example(4))


class Structured(nn.Module):
    def forward(
        self, batch: dict[str, torch.Tensor], pair: list[torch.Tensor], scale: float = 2.0
    ) -> torch.Tensor:
        return (batch["a"] * scale + pair[0] - pair[1]).relu()


def structured() -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    return {"a": example()}, [example(), example()]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda batch, pair: ((batch, pair[:1]), {}), InputTypeError, "pair: .* a list of 2, .* a list of 1"),
        (lambda batch, pair: ((batch, tuple(pair)), {}), InputTypeError, "a tuple of 2"),
        (lambda batch, pair: (({"b": batch["a"]}, pair), {}), InputTypeError, r"keys \['a'\].*\['b'\]"),
        (lambda batch, pair: ((batch["a"], pair), {}), InputTypeError, "a Tensor"),
        (lambda batch, pair: ((batch, pair, 3.0), {}), InputValueError, "scale: .* 2.0, and this is 3.0"),
        (lambda batch, pair: ((batch, pair), {"scales": 2.0}), TypeError, "scales"),
    ],
)
def test_arguments_of_another_structure_are_refused(change: Any, error: type, message: str) -> None:
    program = compiled(Structured(), *structured())
    args, kwargs = change(*structured())
    with pytest.raises(error, match=message):
        program(*args, **kwargs)


def test_arguments_are_taken_as_the_model_takes_them() -> None:
    model = Structured()
    program = compiled(model, *structured())
    batch, pair = structured()
    wanted = model(batch, pair)
    for found in (
        program(batch, pair),
        program(batch, pair, 2.0),
        program(pair=pair, batch=batch),
        program(batch, scale=2.0, pair=pair),
    ):
        torch.testing.assert_close(found, wanted)


def test_no_gradients_are_computed(model: nn.Module) -> None:
    x = example().requires_grad_()
    program = compiled(model)
    assert not program(x).requires_grad
    assert torch.is_grad_enabled()
    with pytest.raises(InputValueError):
        program(example(5))
    assert torch.is_grad_enabled()


def test_a_copy_has_buffers_of_its_own() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return (x * self.count + 1).relu()

    model = Counts()
    program = compiled(model)
    assert model.count.sum() == 0
    program(example())
    other = copy.deepcopy(program)
    program(example())
    assert program.weights.count[0] == 2
    assert other.weights.count[0] == 1
    assert other.engine_0.engine is program.engine_0.engine


def test_a_program_stays_where_it_is(model: nn.Module) -> None:
    program = compiled(model, torch_executed_modules=["second"])
    assert program.to("cpu") is program
    assert program.float().eval().train() is program
    assert not program.training
    with pytest.raises(RuntimeError, match=r"compiled for cpu and torch.float32"):
        program.half()


def test_hooks_run(model: nn.Module) -> None:
    program = compiled(model)
    seen: list[str] = []
    with program.register_forward_hook(lambda *_: seen.append("after")):
        program(example())
    program(example())
    assert seen == ["after"]
    structure = compiled(Structured(), *structured())
    with structure.register_forward_pre_hook(lambda *_: seen.append("before")):
        structure(*structured())
        batch, pair = structured()
        structure(batch, scale=2.0, pair=pair)
    assert seen == ["after", "before", "before"]


def test_a_program_that_nobody_uses_is_freed_at_once(model: nn.Module) -> None:
    program = compiled(model)
    engine = weakref.ref(program.engine_0.engine)
    gc.collect()
    gc.disable()
    try:
        del program
        assert engine() is None
    finally:
        gc.enable()


def test_a_program_is_not_pickled(model: nn.Module) -> None:
    import pickle

    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(compiled(model))


@pytest.mark.parametrize(
    ("ir", "message"),
    [
        ("ts", "ir='ts', and the model is a Split"),
        ("torch_compile", r"torch.compile\(model, backend='trt_rt'\)"),
        ("dynamoo", "one of auto, dynamo, ts"),
    ],
)
def test_the_form_of_the_model_can_be_named(model: nn.Module, ir: Any, message: str) -> None:
    assert compiled(model, ir="dynamo", dryrun=True).engines
    with pytest.raises(CompileError, match=message):
        compiled(model, ir=ir)


def test_one_name_needs_no_list(model: nn.Module) -> None:
    for settings in ({"torch_executed_ops": "aten.relu"}, {"torch_executed_modules": nn.ReLU}):
        partition = compiled(model, min_block_size=1, dryrun=True, **settings)
        assert [step.operator for step in partition.torch_operators if "relu" in step.operator]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"inputs": (torch.zeros(3, 4), 1)}, r"Split cannot be called with these inputs: .*it takes \(x"),
        ({"kwarg_inputs": {"y": torch.zeros(3, 4)}}, "Split cannot be called with these inputs"),
        ({"inputs": {"x": torch.zeros(3, 4)}}, "give inputs by name in kwarg_inputs"),
        ({"inputs": 3}, "must be a tuple or list"),
    ],
)
def test_inputs_that_the_model_does_not_take_are_refused(
    model: nn.Module, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(CompileError, match=message) as caught:
        trt_rt.compile(model, backend="reference", **inputs)
    assert "inspect.py" not in str(caught.value)


def test_an_example_outside_of_its_own_range_is_refused(model: nn.Module) -> None:
    x = example(3)
    torch._dynamo.mark_dynamic(x, 0, min=4, max=8)
    with pytest.raises(CompileError, match="dimension 0 of input 'x' is 3 in the example, and may be 4 to 8"):
        compiled(model, x)
    batch = torch.export.Dim("batch", min=4, max=8)
    with pytest.raises(CompileError, match="3 not in range"):
        compiled(model, dynamic_shapes=({0: batch},))


def test_a_view_of_an_argument_that_is_returned_and_used_is_a_view() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            rows = x[1:]
            columns = rows.transpose(0, 1)
            return rows, torch.relu(rows + 1) * 2, columns, torch.tanh(columns) + columns

    model = Model().eval()
    program = trt_rt.compile(model, inputs=[torch.randn(3, 4)], backend="reference")
    x = torch.randn(3, 4)
    for found, expected in zip(program(x), model(x), strict=True):
        torch.testing.assert_close(found, expected)
    results = program(x)
    x.zero_()
    for view in (results[0], results[2]):
        assert not view.any(), "it shows what is written to the argument"
    assert len(program.partition.engines) == 1


@torch.library.custom_op("trt_rt_tests::add_into", mutates_args=("total",))
def add_into(total: torch.Tensor, x: torch.Tensor) -> None:
    """Add a tensor to another one in place."""
    total.add_(x)


def test_an_operator_of_the_user_that_writes_runs_in_pytorch() -> None:
    class Writes(nn.Module):
        def forward(self, x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
            y = torch.relu(x * 2 + 1) * 3
            torch.ops.trt_rt_tests.add_into(y, x)
            torch.ops.trt_rt_tests.add_into(total, y)
            return torch.relu(y * 2 - 1) * 3

    program = trt_rt.compile(Writes(), inputs=[torch.zeros(3, 4), torch.zeros(3, 4)], backend="reference")
    left = {step.reason for step in program.partition.torch_operators if not step.is_glue}
    assert left == {"trt_rt_tests.add_into.default writes into its arguments"}
    assert len(program.engines) == 2
    for _ in range(2):
        x, total, wanted_total = torch.randn(3, 4), torch.ones(3, 4), torch.ones(3, 4)
        torch.testing.assert_close(program(x, total), Writes()(x, wanted_total))
        torch.testing.assert_close(total, wanted_total)


def test_written_state_that_shares_memory_is_refused_with_its_names() -> None:
    class Shares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("rows", torch.zeros(3, 4))
            self.register_buffer("first", self.rows[0])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.rows.add_(x)
            return torch.relu(self.first * 2 + x)

    with pytest.raises(CompileError, match="rows and first share memory"):
        trt_rt.compile(Shares(), inputs=[torch.zeros(3, 4)], backend="reference")
