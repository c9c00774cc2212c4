"""The time that `import trt_rt` adds to `import torch`."""

from __future__ import annotations

import subprocess
import sys

RUNS = 5
ALLOWED_MS = 60.0


def added_by_trt_rt() -> float:
    """Milliseconds, by the interpreter's own clock of imports, in a fresh process that has torch already."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import torch; import trt_rt"],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in result.stderr.splitlines():
        _, _, rest = line.partition("import time:")
        columns = [column.strip() for column in rest.split("|")]
        if len(columns) == 3 and columns[2] == "trt_rt":
            return int(columns[1]) / 1000
    raise AssertionError("the interpreter reported no import of trt_rt")


def test_import_adds_little_to_torch() -> None:
    # Noise only ever adds to an import, so the smallest of several is the nearest to the truth. The first
    # run also writes the bytecode files.
    times = [added_by_trt_rt() for _ in range(RUNS)]
    assert min(times) <= ALLOWED_MS, f"import trt_rt took {sorted(times)} ms beyond torch's own import"
