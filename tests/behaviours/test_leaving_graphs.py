"""``as`` gives what can be called; on exit all is as before."""

from __future__ import annotations

import contextlib
import gc

import pytest
from torch.multiprocessing.reductions import StorageWeakRef

from tests import isolated
from tests.behaviours.graph_modes import GRAPH_MODES, Doubled, graphed
from trt_rt.runtime import enable_cudagraphs

_MODES = pytest.mark.parametrize("mode", GRAPH_MODES)


@pytest.mark.behaviour(31)
@_MODES
@pytest.mark.parametrize("leaves_by", ["end", "exception"])
def test_the_earlier_state_is_back(make, mode, leaves_by):
    """After the context, also after an exception, calls are run as before, and no graph is left."""
    case = make("two")
    inputs = case.example(3)
    with contextlib.suppress(KeyError), graphed(case, mode) as graphs:
        module = graphs.engine
        assert module.executors.modes.cuda_graphs is (mode == "per_engine")
        graphs.check(*inputs)
        graphs.check(*inputs)
        if leaves_by == "exception":
            raise KeyError
    assert module.executors.modes.cuda_graphs is None
    assert not module.executors.modes.whole_graph
    captures = module.stats()["captures"]
    for _ in range(2):
        case.assert_right(module(*inputs), case.expected(*inputs))
        graphs.check(*inputs)  # what `as` gave can still be called
    assert module.stats()["captures"] == captures


@pytest.mark.behaviour(31)
def test_what_graphs_read_is_freed(make):
    """On exit the static inputs of a program's graphs are freed, though what `as` gave is still held."""
    case = make("two")
    with graphed(case, "whole") as graphs:
        graphs.check(*case.example(3))
        static = StorageWeakRef(graphs.callable.graph_inputs[0].untyped_storage())
        gc.collect()
        assert not static.expired()
    gc.collect()
    assert static.expired()


@pytest.mark.behaviour(31)
@_MODES
def test_entered_again_and_again(make, mode):
    """The same module in one context after the other, and in two at once."""
    case = make("relu")
    module = case.module()
    program = Doubled(module) if mode == "whole" else module
    (x,) = case.example(3)
    expected = [output * (2 if mode == "whole" else 1) for output in case.expected(x)]
    for _ in range(3):
        with enable_cudagraphs(program) as first, enable_cudagraphs(program) as second:
            for run in (first, second, first, second):
                case.assert_right(run(x), expected)
        with enable_cudagraphs(program, whole_graph=True) as run:
            case.assert_right(run(x), expected)
            case.assert_right(run(x), expected)


@pytest.mark.behaviour(31)
def test_data_dependent_outputs_are_refused_at_entry(make):
    """An engine whose output sizes depend on data is refused with the reason, and works as before."""
    case = make("nonzero")
    module = case.module()
    for whole_graph in (None, True, False):
        with pytest.raises(ValueError, match="depends on data"):
            enable_cudagraphs(module, whole_graph=whole_graph).__enter__()
    inputs = case.example(3)
    case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(33)
@_MODES
def test_the_process_ends_with_graphs_alive(make, mode, tmp_path):
    """Interpreter exit within the context: no crash, nothing on stderr."""
    case = make("relu")
    code = f"""
    import trt_rt
    from tests.behaviours.graph_modes import Doubled
    device = torch.device({str(case.device)!r})
    module = TRTModule(plan, backend={case.backend.name!r}, device=device)
    program = Doubled(module) if {mode == "whole"} else module
    context = trt_rt.enable_cudagraphs(program)
    run = context.__enter__()
    run.cycle = run
    for size in (3, 3, 3, 5, 5):
        run(torch.randn(size, 7, device=device))
    print("done")
    """
    if case.factory.path.rpartition(":")[0] != "tests.factories.reference":
        pytest.skip(f"the backend of the plan factory {case.factory.path} may not be found by its name")
    done = isolated.run(code, case.plan, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
