"""A process that forks while other threads call, switch modes and change engines."""

from __future__ import annotations

import pytest

from tests.behaviours.child import assert_ends_quietly
from tests.isolated import printed_by

pytestmark = pytest.mark.behaviour(36)

# What a child does must end within its alarm, whose signal ends the process.
_PRELUDE = """\
import os, signal, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: the process has threads
torch.set_num_threads(1)
parent = os.getpid()
in_call, may_end = threading.Event(), threading.Event()

def fork_and_check(check):
    child = os.fork()
    if child == 0:
        signal.alarm(300)
        check()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"the child ended with status {status}"
"""

_IN_A_CALL = """
from trt_rt import runtime
engine = new_engine()
module = trt_rt.TRTModule(engine)
expected = module(*inputs)
create = engine.handle.backend.create_context

class Waiting:
    def __init__(self, context):
        self.context = context
    def __getattr__(self, name):
        return getattr(self.context, name)
    def execute_async_v3(self, stream):
        if os.getpid() == parent:
            in_call.set()
            assert may_end.wait(300)
        return self.context.execute_async_v3(stream)

engine.handle.backend.create_context = lambda *args, **options: Waiting(create(*args, **options))
engine.run_without_contexts(lambda _: None)
thread = threading.Thread(target=lambda: CALL)
thread.start()
assert in_call.wait(300)

def check():
    for _ in range(2):
        torch.testing.assert_close(module(*inputs), expected)
    with runtime.enable_pre_allocated_outputs(module):
        torch.testing.assert_close(module(*inputs), expected)
    with runtime.enable_cudagraphs(module):
        torch.testing.assert_close(module(*inputs), expected)
    engine.run_without_contexts(lambda _: None)
    other = threading.Thread(target=lambda: torch.testing.assert_close(module(*inputs), expected))
    other.start()
    other.join()
    engine.close()

fork_and_check(check)
may_end.set()
thread.join()
torch.testing.assert_close(module(*inputs), expected)
"""


@pytest.mark.parametrize(
    "call",
    [
        "module.executors.pool.all()[0](*inputs)",
        "engine.run_without_contexts(lambda _: (in_call.set(), may_end.wait(300)))",
        "module.executors.pool.all()[0].bind(*inputs)()",
    ],
    ids=["call", "change", "bound"],
)
def test_a_fork_while_another_thread_works(make, tmp_path, call):
    """The child can call, switch modes, and close the engine; the parent's thread goes on."""
    case = make("two")
    if case.device.type != "cpu":
        pytest.skip("CUDA cannot be used in a forked child")
    assert_ends_quietly(case, tmp_path, _PRELUDE + _IN_A_CALL.replace("CALL", call))


@pytest.mark.gpu
def test_a_forked_child_cannot_use_cuda(make, tmp_path):
    """Calls, new modules and whatever asks TensorRT say so; the child can end all the same."""
    program = """
engine = new_engine()
module = trt_rt.TRTModule(engine)
expected = module(*inputs)

def refused(job):
    try:
        job()
    except trt_rt.ExecutionError as error:
        assert "forked" in str(error), error
    else:
        raise AssertionError("it was not refused")

def check():
    refused(lambda: module(*inputs))
    refused(lambda: module.bind(*inputs))
    refused(lambda: trt_rt.TRTModule(engine))
    refused(engine.serialize)

fork_and_check(check)
torch.testing.assert_close(module(*inputs), expected)
"""
    assert_ends_quietly(make("two"), tmp_path, _PRELUDE + program)


def test_while_another_thread_imports_the_controls() -> None:
    printed = printed_by(
        """
        import os, signal, sys, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import trt_rt

        importing, may_go_on = threading.Event(), threading.Event()

        class Waiting:
            def find_spec(name, path=None, target=None):
                if name == "trt_rt.runtime.refit":
                    importing.set()
                    may_go_on.wait(300)

        sys.meta_path.insert(0, Waiting)
        thread = threading.Thread(target=lambda: trt_rt.enable_cudagraphs)
        thread.start()
        assert importing.wait(300)
        os.register_at_fork(before=may_go_on.set)  # first of all that runs before a fork
        child = os.fork()
        if child == 0:
            signal.alarm(300)
            trt_rt.enable_pre_allocated_outputs
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        thread.join()
        assert trt_rt.enable_cudagraphs
        print("done")
        """
    )
    assert printed == "done\n"
