"""Install a wheel where there is no compiler, and run the demo: python tools/try_wheel.py dist/trt_rt-*.whl.

The environment is new, the working directory is empty, and PATH holds the environment only, so nothing of the
source tree and nothing of the machine's build tools can stand in for what the wheel lacks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel.resolve()
    with tempfile.TemporaryDirectory(prefix="trt_rt-wheel-") as folder:
        environment = Path(folder) / "venv"
        run([sys.executable, "-m", "venv", str(environment)])
        binaries = environment / "bin"
        empty = Path(folder) / "empty"
        empty.mkdir()
        pip = [str(binaries / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
        run([*pip, "--only-binary=:all:", "-c", str(CONSTRAINTS), f"{wheel}[demo]"])
        alone = {"PATH": str(binaries), "HOME": folder, "CXX": "/nonexistent/c++", "CC": "/nonexistent/cc"}
        run([str(binaries / "trt-rt"), "doctor"], cwd=empty, env=alone)
        run([str(binaries / "trt-rt"), "demo", "--calls", "20"], cwd=empty, env=alone)
        run([str(binaries / "python"), "-m", "trt_rt.deploy", "--library"], cwd=empty, env=alone)
    return 0


def run(command: list[str], **options: object) -> None:
    print("+", *command, flush=True)
    finished = subprocess.run(command, **options)  # type: ignore[call-overload]
    if finished.returncode:
        sys.exit(f"{Path(__file__).name}: the command above failed with exit code {finished.returncode}")


if __name__ == "__main__":
    sys.exit(main())
