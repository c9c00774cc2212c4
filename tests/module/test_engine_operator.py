"""The operator that stands for an engine in graphs."""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from tests import isolated
from tests.behaviours.interrupts import KINDS, Interrupter, spread
from tests.behaviours.other_thread import on_another_thread
from tests.reference import plans
from trt_rt import Engine, TRTModule
from trt_rt.errors import InputTypeError, InputValueError, PlanError, SettingError
from trt_rt.module.in_graphs import let_operator_call
from trt_rt.operator import OPERATOR, EngineMeta, TensorMeta
from trt_rt.reference.plan_container import pack, unpack

FLOAT = torch.float32


def meta_of(plan: bytes, inputs: list[Any], outputs: list[Any], **more: Any) -> str:
    return EngineMeta(
        "reference",
        hashlib.sha256(plan).hexdigest(),
        tuple(TensorMeta(*each) for each in inputs),
        tuple(TensorMeta(*each) for each in outputs),
        **more,
    ).dumps()


def as_tensor(plan: bytes) -> torch.Tensor:
    return torch.tensor(list(plan), dtype=torch.uint8)


_NUMBERS = itertools.count()


def unseen(plan: bytes) -> bytes:
    """A plan of the same engine that this process has not loaded, because the operator keeps engines."""
    header, weights = unpack(memoryview(plan))
    return pack({**header, "name": f"unseen {next(_NUMBERS)}"}, [weights] if len(weights) else [])


def affine_meta() -> str:
    return meta_of(plans.affine(), [("x", FLOAT, ("b", 7))], [("output0", FLOAT, ("b", 7))])


def run(plan: bytes, meta: str, *inputs: torch.Tensor) -> Any:
    return OPERATOR(list(inputs), as_tensor(plan), meta)


def test_a_call() -> None:
    for batch in (3, 5):
        x = torch.randn(batch, 7)
        (result,) = run(plans.affine(), affine_meta(), x)
        torch.testing.assert_close(result, plans.eager_affine(x))


def test_results_need_no_gradients_like_those_of_modules() -> None:
    x = torch.randn(3, 7, requires_grad=True)
    (result,) = run(plans.affine(), affine_meta(), x)
    assert not result.requires_grad
    torch.testing.assert_close(result, plans.eager_affine(x.detach()))


def test_two_descriptions_of_one_plan_take_turns() -> None:
    a, b = (("a", FLOAT, ("s0", 3)), ("b", FLOAT, ("s0", 3)))
    outputs = [("increment", FLOAT, ("s0", 3)), ("sum", FLOAT, ("s0", 3))]
    first, second = (meta_of(plans.two(), inputs, outputs) for inputs in ([a, b], [b, a]))
    x, y = torch.randn(2, 2, 3)
    expected = run(plans.two(), first, x, y)
    for _ in range(3):
        torch.testing.assert_close(run(plans.two(), second, y, x), expected)
        torch.testing.assert_close(run(plans.two(), first, x, y), expected)


def test_arguments_and_results_have_the_order_of_the_description() -> None:
    inputs = [("b", FLOAT, ("s0", 3)), ("a", FLOAT, ("s0", 3))]
    outputs = [("increment", FLOAT, ("s0", 3)), ("sum", FLOAT, ("s0", 3))]
    a, b = torch.randn(2, 2, 3)
    increment, total = run(plans.two(), meta_of(plans.two(), inputs, outputs), b, a)
    torch.testing.assert_close((increment, total), (b + 1, a + b))


def test_without_inputs() -> None:
    plan = plans.constants()
    names = [tensor.name for tensor in Engine.from_bytes(plan).outputs]
    meta = meta_of(plan, [], [(names[0], torch.int64, (4,)), (names[1], FLOAT, ())], device="cpu")
    torch.testing.assert_close(run(plan, meta), [torch.arange(4), torch.tensor(2.5)])
    with FakeTensorMode():
        assert [tuple(each.shape) for each in run(plan, meta)] == [(4,), ()]


def test_a_shape_tensor_and_a_size_that_depends_on_data() -> None:
    plan = plans.shape_tensor()
    meta = meta_of(
        plan, [("x", FLOAT, (4,)), ("length", torch.int64, (1,), True)], [("output0", FLOAT, ("?u0",))]
    )
    x = torch.randn(4)
    (result,) = run(plan, meta, x, torch.tensor([7]))
    torch.testing.assert_close(result, x[torch.arange(7) % 4])


def state_meta() -> str:
    plan = plans.accumulate()
    inputs = [(name, FLOAT, (8, 4)) for name in ("cache", "x")]
    outputs = [(each.name, FLOAT, (8, 4)) for each in Engine.from_bytes(plan).outputs]
    aliases = {
        each.name: each.aliased_input for each in Engine.from_bytes(plan).outputs if each.aliased_input
    }
    return meta_of(plan, inputs, outputs, aliased_io=aliases)


def test_state_goes_in_and_comes_out() -> None:
    meta = EngineMeta.parse(state_meta())
    cache, x = torch.randn(2, 8, 4)
    before = cache.clone()
    results = run(plans.accumulate(), meta.dumps(), cache, x)
    torch.testing.assert_close(cache, before)
    for output, result in zip(meta.outputs, results, strict=True):
        torch.testing.assert_close(result, cache + x if output.name in meta.aliased_io else x * 2)


def test_an_engine_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = unseen(plans.copy(torch.int32))
    metas = [
        meta_of(plan, [("x", torch.int32, (name, 4))], [("output0", torch.int32, (name, 4))])
        for name in ("n", "m")
    ]
    loaded: list[Any] = []
    original = Engine.from_bytes

    def counted(*args: Any, **keywords: Any) -> Engine:
        loaded.append(keywords)
        return original(*args, **keywords)

    monkeypatch.setattr(Engine, "from_bytes", counted)
    x = torch.arange(8, dtype=torch.int32).reshape(2, 4)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: run(plan, metas[number % 2], x)[0], range(64)))
    for result in results:
        torch.testing.assert_close(result, x.flip(0))
    assert len(loaded) == 1


# Of a plan that no test loads: a plan is compared with its hash when it is loaded.
NEVER_LOADED = plans.affine(torch.bfloat16)
NEVER_LOADED_META = meta_of(
    NEVER_LOADED, [("x", torch.bfloat16, ("b", 7))], [("output0", torch.bfloat16, ("b", 7))]
)


@pytest.mark.parametrize(
    "plan",
    [NEVER_LOADED[:-1] + bytes([NEVER_LOADED[-1] ^ 1]), NEVER_LOADED[:-1], b"", plans.affine()],
    ids=["flipped", "cut", "empty", "another"],
)
def test_a_plan_with_another_hash_is_refused(plan: bytes) -> None:
    with pytest.raises(PlanError, match="SHA-256"):
        run(plan, NEVER_LOADED_META, torch.randn(3, 7))


@pytest.mark.parametrize(
    "meta",
    [
        meta_of(plans.affine(), [("y", FLOAT, ("b", 7))], [("output0", FLOAT, ("b", 7))]),
        meta_of(plans.affine(), [("x", FLOAT, ("b", 8))], [("output0", FLOAT, ("b", 7))]),
        meta_of(plans.affine(), [("x", FLOAT, ("b",))], [("output0", FLOAT, ("b", 7))]),
        meta_of(plans.affine(), [("x", FLOAT, ("b", 7), True)], [("output0", FLOAT, ("b", 7))]),
        meta_of(plans.affine(), [("x", FLOAT, ("b", 7))], [("output0", torch.float16, ("b", 7))]),
        meta_of(plans.affine(), [("x", FLOAT, ("b", 7))], []),
    ],
    ids=["name", "size", "rank", "location", "dtype", "outputs"],
)
def test_a_description_of_other_tensors_is_refused(meta: str) -> None:
    with pytest.raises(PlanError, match="does not fit its plan"):
        run(plans.affine(), meta, torch.randn(3, 7))


def test_a_description_that_is_not_valid_is_refused() -> None:
    with pytest.raises(PlanError, match="not valid"):
        run(plans.affine(), "{}", torch.randn(3, 7))


def test_a_plan_that_is_no_vector_of_bytes_is_refused() -> None:
    plan = plans.affine(torch.float16)
    meta = meta_of(plan, [("x", torch.float16, ("q", 7))], [("output0", torch.float16, ("q", 7))])
    for wrong in (as_tensor(plan)[None], as_tensor(plan).float()):
        with pytest.raises(PlanError, match="one-dimensional uint8"):
            OPERATOR([torch.randn(3, 7).half()], wrong, meta)


def test_inputs_that_contradict_the_description_are_refused() -> None:
    x, plan, meta = torch.randn(3, 7), plans.affine(), affine_meta()
    run(plan, meta, x)
    for inputs, error in (
        ((), InputValueError),
        ((x, x), InputValueError),
        ((x[:, :6],), InputValueError),
        ((x.half(),), InputTypeError),
    ):
        with pytest.raises(error):
            run(plan, meta, *inputs)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, pytest.raises(error):
            run(plan, meta, *(mode.from_tensor(each) for each in inputs))
    torch.testing.assert_close(run(plan, meta, x)[0], plans.eager_affine(x))


def test_shapes_without_an_engine() -> None:
    """Of a plan that does not exist: symbols, expressions, sizes that depend on data, dtypes."""
    meta = meta_of(
        b"",
        [("x", FLOAT, ("n", 4)), ("y", torch.float16, ("n", "m"))],
        [
            ("a", torch.float16, ("2*n", "max(n, m)//2", 3)),
            ("b", torch.int64, ("?rows", 2)),
            ("c", torch.bool, ("?rows",)),
        ],
    )
    environment = ShapeEnv(allow_dynamic_output_shape_ops=True)
    mode = FakeTensorMode(shape_env=environment)
    batch = StatelessSymbolicContext([DimDynamic.DYNAMIC, DimDynamic.STATIC])
    x = mode.from_tensor(torch.zeros(6, 4), symbolic_context=batch, source=ConstantSource("x"))
    a, b, c = OPERATOR([x, x.half()], mode.from_tensor(as_tensor(b"0")), meta)
    size = x.shape[0].node.expr
    assert [each.dtype for each in (a, b, c)] == [torch.float16, torch.int64, torch.bool]
    assert [str(each) for each in a.shape] == [str(2 * size), f"(Max(4, {size})//2)", "3"]
    assert b.shape[0].node.expr == c.shape[0].node.expr
    assert not b.shape[0].node.has_hint()
    assert {each.device.type for each in (a, b, c)} == {"cpu"}


def test_pytorch_s_own_checks_of_an_operator() -> None:
    torch.library.opcheck(OPERATOR, ([torch.randn(3, 7)], as_tensor(plans.affine()), affine_meta()))
    torch.library.opcheck(OPERATOR, (list(torch.randn(2, 8, 4)), as_tensor(plans.accumulate()), state_meta()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_forked_child() -> None:
    x = torch.randn(3, 7)
    run(plans.affine(), affine_meta(), x)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            (result,) = run(plans.affine(), affine_meta(), x)
            status = int(not torch.equal(result, plans.eager_affine(x)))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_that_has_only_imported_trt_rt(tmp_path: Path) -> None:
    """The operator is there after the import, and importing it brings neither Dynamo nor a compiler."""
    result = isolated.run(
        f"""
        meta = {affine_meta()!r}
        tensor = torch.frombuffer(bytearray(plan), dtype=torch.uint8)
        assert not {{"torch._dynamo", "torch._inductor", "onnx"}} & set(sys.modules)
        print(torch.ops.trt_rt.execute_engine([torch.zeros(3, 7)], tensor, meta)[0].shape)
        """,
        plans.affine(),
        tmp_path,
    )
    assert result.stdout == "torch.Size([3, 7])\n", result.stderr


@pytest.mark.parametrize("wrong", [{}, {"output0": "cache"}, {"output0": "cache", "cache_out": "cache"}])
def test_a_description_of_other_aliases_is_refused(wrong: dict[str, str]) -> None:
    meta = json.loads(state_meta())
    meta["aliased_io"] = wrong
    cache, x = torch.zeros(8, 4), torch.ones(8, 4)
    for _ in range(2):
        with pytest.raises((PlanError, SettingError)):
            run(plans.accumulate(), json.dumps(meta), cache, x)
    assert not cache.any()


@pytest.mark.behaviour(34)
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_first_call(kind: str) -> None:
    """An interrupt while an engine is loaded leaves the operator usable, by every thread."""
    x = torch.randn(3, 7)

    def tried(n: int) -> Interrupter:
        new = unseen(plans.affine())
        plan = torch.frombuffer(bytearray(new), dtype=torch.uint8)
        meta = meta_of(new, [("x", FLOAT, ("b", 7))], [("output0", FLOAT, ("b", 7))])

        def is_right() -> None:
            torch.testing.assert_close(OPERATOR([x], plan, meta), [plans.eager_affine(x)])

        interrupter = Interrupter(kind, n)
        interrupter.run(is_right)
        assert interrupter.raised == interrupter.fired, f"the interrupt at {interrupter.place} is lost"
        on_another_thread(is_right)
        is_right()
        return interrupter

    run(plans.affine(), affine_meta(), x)  # imports what only the first call of a process imports
    for n in spread(tried(0).counted):
        tried(n)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (("b", 7), ("2*b", 7)),
        (("b", 7), ("b + 1", 7)),
        (("b", 7), ("max(b, 2)", 7)),
        (("b", 7), ("b", "b")),
        (("b", 7), ("b//0", 7)),
        (("b", 7), (1, 7)),
        (("b", "c"), ("b", "c")),
        (("b", "b"), ("b", "b")),
    ],
    ids=str,
)
def test_a_description_of_other_sizes_is_refused(inputs: Any, outputs: Any) -> None:
    meta = meta_of(plans.affine(), [("x", FLOAT, inputs)], [("output0", FLOAT, outputs)])
    for _ in range(2):
        with pytest.raises(PlanError, match="does not fit its plan"):
            run(plans.affine(), meta, torch.randn(3, 7))


@pytest.mark.parametrize(
    ("inputs", "outputs"), [((3, 7), (3, 7)), (("b", 7), ("?u", 7)), (("b", 7), ("2*b - b", 7))]
)
def test_a_description_that_says_less_is_accepted(inputs: Any, outputs: Any) -> None:
    x = torch.randn(3, 7)
    meta = meta_of(plans.affine(), [("x", FLOAT, inputs)], [("output0", FLOAT, outputs)])
    torch.testing.assert_close(run(plans.affine(), meta, x)[0], plans.eager_affine(x))


def test_a_plan_without_values_is_refused() -> None:
    plan = as_tensor(plans.affine()).to("meta")
    with pytest.raises(InputValueError, match="meta device"):
        OPERATOR([torch.randn(3, 7)], plan, affine_meta())
    (result,) = OPERATOR([torch.empty(3, 7, device="meta")], plan, affine_meta())
    assert (result.device.type, result.shape) == ("meta", (3, 7))
    (result,) = OPERATOR([torch.empty(3, 7, device="meta")], as_tensor(plans.affine()), affine_meta())
    assert result.is_meta


def test_an_input_without_values_beside_others_is_refused() -> None:
    two = [("a", FLOAT, ("s0", 3)), ("b", FLOAT, ("s0", 3))]
    meta = meta_of(plans.affine(), two, [("output0", FLOAT, ("s0", 3))])
    inputs = [torch.ones(2, 3), torch.ones(2, 3, device="meta")]
    with pytest.raises(InputValueError, match="meta device"):
        OPERATOR(inputs, as_tensor(plans.affine()), meta)


def test_an_engine_without_inputs_and_without_a_plan_has_no_result() -> None:
    meta = meta_of(plans.affine(), [], [("output0", FLOAT, (2,))], device="cpu")
    (result,) = OPERATOR([], as_tensor(plans.affine()).to("meta"), meta)
    assert result.is_meta


def test_descriptions_do_not_pile_up() -> None:
    module = TRTModule(Engine.from_bytes(plans.affine(), device="cpu"))
    x = torch.randn(3, 7)
    for number in range(3000):
        name = f"b{number}"
        meta = meta_of(plans.affine(), [("x", FLOAT, (name, 7))], [("output0", FLOAT, (name, 7))])
        let_operator_call(f"{number}", module)
        called = EngineMeta.parse(meta)
        text = replace(called, module=f"{number}").dumps()
        (result,) = OPERATOR([x], torch.empty(0, dtype=torch.uint8), text)
        if number == 0:
            first = text
    torch.testing.assert_close(result, plans.eager_affine(x))
    (result,) = OPERATOR([x], torch.empty(0, dtype=torch.uint8), first)
    torch.testing.assert_close(result, plans.eager_affine(x))
    kept = [each for each in gc.get_objects() if type(each) is EngineMeta]
    assert len(kept) < 2000
