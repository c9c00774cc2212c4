"""The program that ``count.py`` runs under callgrind: it makes the calls and names them in order.

Run on its own it does nothing useful. Callgrind collects inside ``bench_repeat_calls`` only and writes
one dump each time that function is left, so each :meth:`PreparedCall.repeat` is one dump.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path

import torch
from prepared_call import PreparedCall
from scenarios import scenarios_for

# Dumps of one scenario: what is paid once and then remembered, then N calls, then twice as many. The
# difference of the last two, divided by N, is the cost of one call in the steady state.
WARM_UP_CALLS = 60
CALLS = 100
REPEATS = (WARM_UP_CALLS, CALLS, 2 * CALLS)
EMPTY_LOOP = "empty_loop"


def main(names_file: Path, wanted: list[str]) -> None:
    device = torch.device("cpu")
    gc.disable()
    counted = [scenario for scenario in scenarios_for(device.type) if scenario.counted]
    unknown = set(wanted) - {scenario.name for scenario in counted}
    if unknown:
        sys.exit(f"no such rows: {sorted(unknown)}; there are {[scenario.name for scenario in counted]}")
    prepared = {EMPTY_LOOP: PreparedCall(None)}
    for scenario in counted:
        if not wanted or scenario.name in wanted:
            prepared[scenario.name] = scenario.make(device)
    names_file.write_text(json.dumps(list(prepared)), encoding="utf-8")
    for call in prepared.values():
        for repeats in REPEATS:
            call.repeat(repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names_file", type=Path, help="where to write the names of what is called, as JSON")
    parser.add_argument("scenarios", nargs="*", help="rows to call; all that are counted if none is named")
    options = parser.parse_args()
    main(options.names_file, options.scenarios)
