"""Prints, as JSON, what one installed TensorRT binding exports; run as a program.

    python binding_signatures.py tensorrt_rtx

Exit status 3 and a sentence on standard output: the backend is not here. It has a process of its own, so that
what is described is not what another backend has left behind.
"""

from __future__ import annotations

import json
import re
import sys

from trt_rt import BackendError
from trt_rt.backend import load

NOT_HERE = 3


def split_arguments(text: str) -> list[str]:
    """Split at the commas that are in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{<") - (character in ")]}>")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def overloads(name: str, docstring: str) -> list[dict]:
    """Every signature of a method that pybind11 wrote into its docstring."""
    found = []
    for match in re.finditer(rf"^(?:\d+\. )?{name}\((self: .*)\) -> (.*)$", docstring, re.MULTILINE):
        arguments = split_arguments(match[1])[1:]
        found.append(
            {
                "parameters": [argument.split(":")[0].strip() for argument in arguments],
                "required": sum("=" not in argument for argument in arguments),
                "returns": match[2],
            }
        )
    return found


def members(cls: type) -> dict:
    result = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith(("builtins", "pybind11")):
            continue
        for name, value in vars(base).items():
            if name.startswith("_") and name != "__getitem__":
                continue
            if isinstance(value, property) and type(value).__name__ != "pybind11_static_property":
                returns = (getattr(value.fget, "__doc__", None) or "").partition(" -> ")[2].strip()
                result[name] = {
                    "kind": "property",
                    "settable": value.fset is not None,
                    "overloads": [{"parameters": [], "required": 0, "returns": returns}],
                }
            elif callable(value) and not isinstance(value, type):
                signatures = overloads(name, value.__doc__ or "")
                result[name] = {"kind": "method", "overloads": signatures}
            else:
                result[name] = {"kind": "constant"}
    return result


def describe(module: object) -> dict:
    classes, enums = {}, {}
    pending = [(name, value) for name, value in vars(module).items() if isinstance(value, type)]
    pending.append(("ILogger.Severity", module.ILogger.Severity))
    for name, cls in pending:
        if hasattr(cls, "__members__"):
            enums[name] = {member: int(value) for member, value in cls.__members__.items()}
        else:
            classes[name] = members(cls)
    return {"version": module.__version__, "classes": classes, "enums": enums}


def main(name: str) -> int:
    try:
        module = load(name).api
    except BackendError as error:
        print(error)
        return NOT_HERE
    print(json.dumps(describe(module)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
