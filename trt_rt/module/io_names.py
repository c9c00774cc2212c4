"""An engine's inputs and outputs in the order of a module's calls, and which of them share memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from trt_rt._core.io_tensor import IOTensor
from trt_rt.engine import Engine
from trt_rt.errors import InputValueError, SettingError

__all__ = ["by_position", "in_order", "with_aliases"]


def in_order(engine: Engine, mode: str, names: Sequence[str] | None) -> tuple[IOTensor, ...]:
    """Return an engine's inputs or outputs in the order of their names.

    Parameters
    ----------
    engine : Engine
    mode : {"input", "output"}
    names : sequence of str or None
        Each of them once; None for the engine's order.

    Raises
    ------
    SettingError
        If a name is not in the engine, of the other direction, missing or there twice.
    """
    available = {tensor.name: tensor for tensor in (engine.inputs if mode == "input" else engine.outputs)}
    if names is None:
        return tuple(available.values())
    for wanted in names:
        if wanted not in available:
            other = engine.outputs if mode == "input" else engine.inputs
            fact = (
                f"which is an {other[0].mode}"
                if wanted in {t.name for t in other}
                else "which it does not have"
            )
            raise SettingError(
                f"{mode}_binding_names names {wanted!r}, {fact}: engine {engine.name!r} has the {mode}s "
                f"{list(available)}."
            )
    if sorted(names) != sorted(available):
        raise SettingError(
            f"{mode}_binding_names {list(names)} must name each of the {mode}s of engine {engine.name!r} "
            f"once: {list(available)}."
        )
    return tuple(available[wanted] for wanted in names)


def with_aliases(
    engine: Engine, outputs: Sequence[IOTensor], aliased_io: Mapping[str, Any]
) -> list[IOTensor]:
    """Return outputs that also say in which inputs they lie where the plan does not.

    Parameters
    ----------
    engine : Engine
    outputs : sequence of IOTensor
        All of the engine's.
    aliased_io : mapping of str to str or tuple
        From outputs to inputs; of a tuple the first item counts.

    Raises
    ------
    SettingError
        If there is no such output or input, the plan says something else, two outputs would lie in one input,
        or an output and its input differ in dtype, shape or kind of memory.
    """
    inputs = {tensor.name: tensor for tensor in engine.inputs}
    found = {tensor.name: tensor for tensor in outputs}
    for name, value in aliased_io.items():
        source = value if isinstance(value, str) else value[0]
        what = f"aliased_io[{name!r}] of engine {engine.name!r}"
        if name not in found:
            raise SettingError(f"{what}: the engine has the outputs {list(found)}.")
        if source not in inputs:
            raise SettingError(f"{what} is {source!r}: the engine has the inputs {list(inputs)}.")
        output, its_input = found[name], inputs[source]
        if output.aliased_input not in (None, source):
            raise SettingError(
                f"{what} is {source!r}, but the plan says that it lies in the memory of input "
                f"{output.aliased_input!r}. Leave aliased_io out."
            )
        if (output.dtype, output.shape, output.location) != (
            its_input.dtype,
            its_input.shape,
            its_input.location,
        ):
            raise SettingError(f"{what}: output {output} does not fit into the memory of input {its_input}.")
        others = [each.name for each in found.values() if each.aliased_input == source and each.name != name]
        if others:
            raise SettingError(
                f"{what} is {source!r}, but output {others[0]!r} lies in the memory of that input, and would "
                "overwrite it. Leave one of them out."
            )
        found[name] = replace(output, aliased_input=source)
    return list(found.values())


def by_position(
    engine_name: str, names: Sequence[str], inputs: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return the inputs of a call in the order of their names.

    Parameters
    ----------
    engine_name : str
        The engine's name in the message.
    names : sequence of str
        The names of all inputs, in the order of a call's arguments.
    inputs : tuple
        The first inputs.
    named : mapping of str to object
        The other inputs, by name.

    Raises
    ------
    InputValueError
        If a name is unknown, or an input is missing or there twice.
    """
    expected = names[len(inputs) :]
    unknown = sorted(set(named) - set(expected))
    missing = [name for name in expected if name not in named]
    if unknown or missing:
        problem = f"unexpected {unknown}" if unknown else f"missing {missing}"
        raise InputValueError(
            f"engine {engine_name!r} takes the inputs {list(names)}, of which {len(inputs)} came by "
            f"position; by name: {problem}."
        )
    return (*inputs, *(named[name] for name in expected))
