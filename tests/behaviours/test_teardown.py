"""Whatever order things are deleted in, nothing crashes, nothing is printed, nothing stays."""

from __future__ import annotations

import copy
import gc
import itertools
import sys
import weakref

import pytest
import torch

import trt_rt
from tests.behaviours.child import assert_ends_quietly
from tests.behaviours.modes import MODES, Caller

pytestmark = pytest.mark.behaviour(33)


class _Watched:
    """Stands for an object of TensorRT's, and notes when it is destroyed."""

    def __init__(self, name, wrapped, ends):
        self._name = name
        self._wrapped = wrapped
        self._ends = ends

    def __getattr__(self, name):
        return getattr(self._wrapped, name)

    def __del__(self):
        self._ends.append(self._name)


def _watched(backend):
    """A backend like `backend` whose objects are watched, and the list of those that were destroyed."""
    ends = []
    watching = copy.copy(backend)
    watching.runtime = lambda **options: _Watched("runtime", backend.runtime(**options), ends)
    watching.deserialize = lambda runtime, plan, name: _Watched(
        "engine", backend.deserialize(runtime._wrapped, plan, name), ends
    )
    watching.create_context = lambda engine, name, **options: _Watched(
        "context", backend.create_context(engine._wrapped, name, **options), ends
    )
    return watching, ends


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["engine", "module", "bound"])), ids=lambda order: "-".join(order)
)
def test_any_order_of_deletion(make, order):
    """However references go, TensorRT's objects end in its order: context, engine, runtime."""
    case = make("two")
    backend, ends = _watched(case.backend)
    held = {"engine": case.engine(backend)}
    held["module"] = trt_rt.TRTModule(held["engine"])
    inputs = case.example(3)
    held["bound"] = held["module"].bind(*inputs)
    results = [held["module"](*inputs), held["bound"]()]
    for name in order:
        if "bound" in held:
            case.assert_right(held["bound"](), case.expected(*inputs))
        del held[name]
        # A bound call and a module need the context; an engine alone has none.
        assert ("context" in ends) == ("module" not in held and "bound" not in held)
    assert ends == ["context", "engine", "runtime"]
    for result in results:
        case.assert_right(result, case.expected(*inputs))


def test_several_contexts(make):
    """An engine ends after the contexts of all modules over it."""
    case = make("relu")
    backend, ends = _watched(case.backend)
    engine = case.engine(backend)
    modules = [trt_rt.TRTModule(engine) for _ in range(3)]
    for module in modules:
        module(*case.example(3))
    del engine, module
    while modules:
        assert "engine" not in ends
        modules.pop(1 if len(modules) > 1 else 0)
    assert ends == ["context", "context", "context", "engine", "runtime"]


def test_closing(make):
    """close() ends everything in TensorRT's order, may be repeated, and later uses say that it was closed."""
    case = make("two")
    backend, ends = _watched(case.backend)
    engine = case.engine(backend)
    module = trt_rt.TRTModule(engine)
    inputs = case.example(3)
    bound = module.bind(*inputs)
    result = module(*inputs)
    assert not engine.closed
    for _ in range(3):
        engine.close()
        assert engine.closed
        assert ends == ["context", "engine", "runtime"]
    case.assert_right(result, case.expected(*inputs))
    uses = [
        lambda: module(*inputs),
        lambda: module(),
        lambda: module(*inputs, out=result),
        bound,
        lambda: module.bind(*inputs),
        lambda: trt_rt.TRTModule(engine),
        engine.serialize,
        engine.inspect,
        lambda: engine.num_optimization_profiles,
        engine.__enter__,
    ]
    for use in uses:
        with pytest.raises(trt_rt.ClosedError, match="'two' was closed"):
            use()
    assert "closed" in repr(engine)
    assert module.extra_repr()


def test_an_engine_as_context_manager(make):
    """Leaving ``with`` closes the engine, by an exception too."""
    case = make("relu")
    inputs = case.example(3)
    for error in (None, ZeroDivisionError()):
        try:
            with case.engine() as engine:
                case.assert_right(trt_rt.TRTModule(engine)(*inputs), case.expected(*inputs))
                if error:
                    raise error
        except ZeroDivisionError:
            pass
        assert engine.closed


def test_a_failed_load_leaves_nothing(make):
    """When a plan is refused, the runtime made for it is gone too."""
    case = make("relu")
    backend, ends = _watched(case.backend)
    with pytest.raises(trt_rt.PlanError):
        case.engine(backend, plan=case.plan[:-1])
    gc.collect()
    assert ends == ["runtime"]


def test_reference_cycles(make):
    """A module in a reference cycle is collected with all that belongs to it."""
    case = make("two")
    backend, ends = _watched(case.backend)
    module = case.module(backend)
    bound = module.bind(*case.example(3))
    module.itself = [module, bound]
    module.register_forward_hook(lambda module, inputs, output: None)
    module.register_forward_pre_hook(module.extra_repr)
    trace = weakref.ref(module)
    del module, bound
    gc.collect()
    assert trace() is None
    assert sorted(ends) == ["context", "engine", "runtime"]


@pytest.mark.parametrize("mode", MODES)
def test_calls_leave_no_references(make, mode):
    """A thousand calls, good and refused, leave no reference to inputs, and no object behind."""
    case = make("two")
    caller = Caller(case.module(), mode)
    a, b = case.example(3)
    strided = b.t().contiguous().t()
    expected = case.expected(a, b)

    def calls(number: int) -> None:
        for _ in range(number):
            caller((a, b), expected)
            if mode != "bound":
                caller((a, strided), expected)
            for refused in ((a, b.half()), (a,), (a, None)):
                with pytest.raises(trt_rt.InputError):
                    caller(refused, expected)

    calls(20)
    gc.collect()
    before = [sys.getrefcount(value) for value in (a, b, strided, expected, torch.float32, ())]
    objects = len(gc.get_objects())
    calls(1000 // 5)
    gc.collect()
    after = [sys.getrefcount(value) for value in (a, b, strided, expected, torch.float32, ())]
    assert after[:4] == before[:4]
    # Others hold references to these as well; a leak would be one a call or more.
    assert max(new - old for new, old in zip(after, before, strict=True)) < 50
    assert len(gc.get_objects()) - objects < 50


_EXITS = {
    "engines-alive": """
import gc, sys
gc.disable()
module = trt_rt.TRTModule(new_engine())
bound = module.bind(*inputs)
held = [module(*inputs), bound()]
module.set_pre_allocated_outputs(True)
views = [output[0] for output in module(*inputs)]
allocating = trt_rt.TRTModule(module.engine, requires_output_allocator=True)
allocated = [allocating.bind(*inputs), allocating(*inputs)]
cycle = trt_rt.TRTModule(new_engine())
cycle.itself = [cycle, cycle.bind(*inputs)]
cycle.register_forward_hook(lambda *_: module)
cycle(*inputs)
sys.modules["kept until the very end"] = cycle
""",
    "late-calls": """
import atexit, threading
module = trt_rt.TRTModule(new_engine())
module(*inputs)
class Late:
    def __init__(self): self.module = module
    def __del__(self):
        try: self.module(*inputs)
        except (trt_rt.TRTError, TypeError, NameError, AttributeError): pass
late = Late()
late.itself = late
atexit.register(module.engine.close)
atexit.register(module, *inputs)
kept = threading.local()
def call():
    kept.module = trt_rt.TRTModule(module.engine)
    for _ in range(200):
        module(*inputs)
        kept.result = kept.module(*inputs)
for _ in range(4):  # they go on when the main thread has ended, and Python waits for them
    threading.Thread(target=call).start()
""",
    "orders": """
import gc, itertools
for order in itertools.permutations(range(4)):
    engine = new_engine()
    module = trt_rt.TRTModule(engine)
    bound = module.bind(*inputs)
    things = [engine, module, bound, [module(*inputs), bound()]]
    engine = module = bound = None
    for index in order:
        things[index] = None
for failing in (False, True):
    module = trt_rt.TRTModule(new_engine())
    module.itself = [module, module.bind(*inputs), module.engine, module(*inputs)]
    module = None
    gc.collect()
""",
}


@pytest.mark.parametrize("program", _EXITS)
def test_the_process_ends_quietly(make, tmp_path, program):
    """Engines alive at exit, in cycles, in use by threads or called by finalizers: status 0, and no word."""
    assert_ends_quietly(make("two"), tmp_path, _EXITS[program])
