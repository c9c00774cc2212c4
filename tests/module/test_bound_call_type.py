"""Bound calls are made by bind only; no other way ends the process."""

from __future__ import annotations

from pathlib import Path

from tests import isolated
from tests.reference import plans

WAYS = {
    "new": "type(bound).__new__(type(bound), module.executor, ())()",
    "new_with_inputs": "type(bound).__new__(type(bound), module.executor, (x,))()",
    "new_without": "type(bound).__new__(type(bound))()",
    "object_new": "object.__new__(type(bound))()",
    "call": "type(bound)(module.executor, (x,))()",
    "copy": "import copy; copy.copy(bound)()",
    "deepcopy": "import copy; copy.deepcopy(bound)()",
    "pickle": "import pickle; pickle.loads(pickle.dumps(bound))()",
    "reduce": "import copyreg; copyreg.__newobj__(type(bound), module.executor, (x,))()",
    "subclass": "type('Mine', (type(bound),), {})(module.executor, (x,))()",
    "executor_new": "type(module.executor).__new__(type(module.executor), None, (), ())()",
    "pool_new": "pool = type(module.executors.pool); pool.__new__(pool, None, x.device, 2).current()",
}


def test_every_other_way_is_refused(tmp_path: Path) -> None:
    """All in one process, which says where it was if it ends."""
    result = isolated.run(
        f"""
        module = TRTModule(plan)
        x = torch.randn(3, 7)
        bound = module.bind(x)
        for name, way in {WAYS!r}.items():
            print(name, flush=True)
            try:
                exec(way)
            except (TypeError, TRTError, AttributeError, ValueError) as error:
                continue
            print("was not refused")
        gc.collect()
        assert torch.equal(bound(), torch.relu(x) * 2 + 1)
        print("usable")
        """,
        plans.affine(),
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, ""), f"after {result.stdout}"
    assert result.stdout.split("\n") == [*WAYS, "usable", ""]
