"""Loading runs no code of the file's, and what a file was made for is checked."""

from __future__ import annotations

import struct

import pytest

import trt_rt
from tests import isolated

# Events of sys.audit with which Python or PyTorch turns bytes into code.
_WATCH = """
started, seen = False, []

def watch(event, arguments):
    if started and event in ("pickle.find_class", "marshal.loads", "exec", "compile", "import", "os.system"):
        seen.append((event, str(arguments[0])[:80]))

sys.addaudithook(watch)
"""


@pytest.mark.behaviour(25)
@pytest.mark.parametrize("kind", ["relu", "two", "nonzero", "shape_tensor", "streaming"])
def test_loading_runs_no_code(make, kind, tmp_path):
    """A second load and call in a process, when all modules are there, makes no code of anything."""
    case = make(kind)
    if case.backend_argument != "reference":
        pytest.skip("what TensorRT's own library does with a plan cannot be seen from Python")
    shapes = [(tuple(t.shape), str(t.dtype)[6:], t.device.type) for t in case.example(3)]
    code = f"""{_WATCH}
inputs = [torch.ones(shape, dtype=getattr(torch, dtype), device=device) for shape, dtype, device in {shapes}]
TRTModule(plan)(*inputs)
started = True
TRTModule(plan)(*inputs)
Engine.load(sys.argv[1]).inspect()
started = False
print(seen)
"""
    finished = isolated.run(code, case.plan, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == "[]"


@pytest.mark.behaviour(26)
def test_what_a_plan_was_made_for(make):
    """A plan of another format version, of other content than its checksum, or cut short says so."""
    case = make("relu")
    if case.backend_argument != "reference":
        pytest.skip("only the reference backend's format is ours")
    version = struct.unpack_from("<I", case.plan, 8)[0]
    other = bytearray(case.plan)
    struct.pack_into("<I", other, 8, version + 1)
    damaged = bytearray(case.plan)
    damaged[-1] ^= 1
    for plan, reason in (
        (bytes(other), f"version {version + 1}.*build it again"),
        (bytes(damaged), "checksum.*corrupted"),
        (case.plan[:-64], "truncated"),
        (case.plan + bytes(64), "truncated or corrupted"),
    ):
        with pytest.raises(trt_rt.PlanError, match=reason):
            trt_rt.Engine.from_bytes(plan, backend="reference")


@pytest.mark.behaviour(26)
@pytest.mark.parametrize("magic", [b"ftrt", b"vtrt"])
def test_another_backends_plan(make, magic):
    """A plan of TensorRT's own is refused by the reference backend, which says what can run it."""
    case = make("relu")
    if case.backend_argument != "reference":
        pytest.skip("the door of the reference backend")
    with pytest.raises(trt_rt.TRTError, match="TensorRT"):
        trt_rt.Engine.from_bytes(magic + bytes(4092), backend="reference")
    case.assert_right(case.module()(*(inputs := case.example(3))), case.expected(*inputs))
