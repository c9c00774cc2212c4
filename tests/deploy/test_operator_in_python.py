"""The C++ operator in Python processes: with the Python package's own, and against PyTorch's results."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.deploy.building import Run
from trt_rt.deploy import LIBRARY

_LOAD = f"import torch; torch.ops.load_library({str(LIBRARY)!r})\n"

_CALL = """
    from tests.deploy.programs import Affine, affine_plan, program_over
    program = program_over(*affine_plan())
    x = torch.randn(3, 8)
    assert torch.equal(program(x), Affine()(x))
    import trt_rt.module.engine_operator
    assert torch.equal(program(x), Affine()(x))
    engines = trt_rt.module.engine_operator._engines
    print("C++" if not engines else "Python")
"""


@pytest.mark.parametrize(
    ("code", "kernel"),
    [
        (_LOAD + textwrap.dedent(_CALL), "C++"),
        ("import trt_rt.module.engine_operator\n" + _LOAD + textwrap.dedent(_CALL), "Python"),
    ],
    ids=["library first", "package first"],
)
def test_one_kernel_serves_a_process(run: Run, code: str, kernel: str) -> None:
    result = run(sys.executable, "-c", code)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{kernel}\n", "")


_NETWORKS = """
    import hashlib
    from trt_rt import reference
    from trt_rt.operator import OPERATOR, EngineMeta, TensorMeta

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.arange(4.0))
        def forward(self, a, b):
            return (a - b) * self.weight / 2.0, torch.nonzero(a), -b

    batch = torch.export.Dim("b", min=1, max=32)
    shapes = {"a": {0: batch}, "b": {0: batch}}
    profiles = [{"a": p, "b": p} for p in ([(1, 4), (2, 4), (4, 4)], [(5, 4), (8, 4), (32, 4)])]
    plan = reference.build(
        Two(), (torch.ones(6, 4), torch.ones(6, 4)), dynamic_shapes=shapes, profiles=profiles,
        input_names=["a", "b"], output_names=["x", "y", "z"],
    )
    tensor = lambda name, *shape, dtype=torch.float32: TensorMeta(name, dtype, shape)
    meta = EngineMeta(
        "reference", hashlib.sha256(plan).hexdigest(), (tensor("a", "s0", 4), tensor("b", "s0", 4)),
        (tensor("x", "s0", 4), tensor("y", "?u0", 2, dtype=torch.int64), tensor("z", "s0", 4)),
    ).dumps()
    plan = torch.frombuffer(bytearray(plan), dtype=torch.uint8)
"""


def test_results_are_those_of_pytorch(run: Run) -> None:
    """Two inputs, three outputs, one of a size that depends on data, two profiles, strided inputs."""
    code = _LOAD + textwrap.dedent(
        _NETWORKS
        + """
    expected = Two()
    for size in (1, 4, 5, 32, 4, 6, 1):
        a, b = torch.randn(size, 4).relu(), torch.randn(size, 4)
        strided = [a.t().contiguous().t(), b.repeat(1, 2)[:, ::2]]
        for arguments in ([a, b], strided, [a * 0, b], [a, b[:1].expand(size, 4)]):
            results = OPERATOR(arguments, plan, meta)
            for result, value in zip(results, expected(*arguments), strict=True):
                assert result.dtype == value.dtype and result.shape == value.shape, (result, value)
                assert torch.equal(result, value)
    held = OPERATOR([a, b], plan, meta)
    copies = [tensor.clone() for tensor in held]
    OPERATOR([a + 1, b + 1], plan, meta)
    assert all(map(torch.equal, held, copies)), "held results are not overwritten"
    try:
        OPERATOR([a, torch.ones(2, 4)], plan, meta)
    except RuntimeError as error:
        print(str(error).splitlines()[0])
    assert torch.equal(OPERATOR([a, b], plan, meta)[2], -b), "the next good call works"
    """
    )
    result = run(sys.executable, "-c", code)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert (
        "needs the same size in dimension 0 of 'a' and dimension 0 of 'b', and got 1 and 2." in result.stdout
    )


def test_two_outputs_cannot_be_written_into_one_input(run: Run) -> None:
    """Written by hand: no backend makes such an engine."""
    code = _LOAD + textwrap.dedent(
        _NETWORKS
        + """
    import json
    wrong = json.dumps(json.loads(meta) | {"aliased_io": {"x": "a", "z": "a"}})
    try:
        OPERATOR([torch.ones(6, 4), torch.ones(6, 4)], plan, wrong)
    except RuntimeError as error:
        print(str(error).splitlines()[0])
    """
    )
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    assert "Two outputs of the engine" in result.stdout
    assert "are written into its input 'a'" in result.stdout


def test_a_locale_with_a_decimal_comma_changes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("localedef") is None:
        pytest.skip("there is no localedef, which makes a locale")
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "comma")])
    if made.returncode not in (0, 1):  # 1 is success with warnings
        pytest.skip("localedef cannot make a German locale here")
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    code = _LOAD + textwrap.dedent(
        _NETWORKS
        + """
    import locale
    locale.setlocale(locale.LC_ALL, "comma")
    print(locale.localeconv()["decimal_point"])
    a = torch.randn(6, 4)
    for result, value in zip(OPERATOR([a, a], plan, meta), Two()(a, a), strict=True):
        assert torch.equal(result, value)
    """
    )
    result = run(sys.executable, "-c", code)
    assert (result.returncode, result.stdout) == (0, ",\n"), result.stderr


def test_modules_are_freed_during_their_calls(run: Run) -> None:
    """Calls release the GIL, so the module and its plan may go while C++ runs the engine."""
    code = _LOAD + textwrap.dedent(
        """
    import gc, threading
    from tests.deploy.programs import Affine, affine_plan, program_over
    plan, meta = affine_plan()
    current = [program_over(plan, meta)]
    x = torch.randn(32, 8)
    expected, wrong, stop = Affine()(x), [], threading.Event()

    def call():
        while not stop.is_set():
            if not torch.equal(current[0](x), expected):
                wrong.append(1)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        current[0] = program_over(plan, meta)
        gc.collect(0)
    stop.set()
    for thread in threads:
        thread.join()
    print(len(wrong))
    """
    )
    result = run(sys.executable, "-c", code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n", "")
