"""The parameters of a program's call, as they stand in the manifest."""

from __future__ import annotations

import inspect
import keyword
import math
from collections.abc import Sequence
from typing import Any

from trt_rt.archive.strict_json import Fields
from trt_rt.errors import ArchiveError

__all__ = ["parameters_to_json", "read_parameters", "signature_of_names"]

_KINDS = {
    "positional_only": inspect.Parameter.POSITIONAL_ONLY,
    "positional_or_keyword": inspect.Parameter.POSITIONAL_OR_KEYWORD,
    "var_positional": inspect.Parameter.VAR_POSITIONAL,
    "keyword_only": inspect.Parameter.KEYWORD_ONLY,
    "var_keyword": inspect.Parameter.VAR_KEYWORD,
}


def parameters_to_json(signature: inspect.Signature | None) -> list[dict[str, Any]] | None:
    """Return what a manifest tells of a signature.

    A default that is not None, a number, a string or a truth value cannot be stored. The parameter then has
    none in the loaded program.
    """
    if signature is None:
        return None
    found = []
    for parameter in signature.parameters.values():
        value: dict[str, Any] = {"name": parameter.name, "kind": parameter.kind.name.lower()}
        default = parameter.default
        is_number = type(default) is not float or math.isfinite(default)
        if default is None or (type(default) in (bool, int, float, str) and is_number):
            value["default"] = default
        found.append(value)
    return found


def read_parameters(value: list[Any] | None, where: str) -> inspect.Signature | None:
    """Return the signature that a manifest tells.

    Raises
    ------
    ArchiveError
        A name is not an identifier, or the parameters are not those of a function.
    """
    if value is None:
        return None
    parameters = []
    for item in value:
        fields = Fields(item, f"{where}, its parameters")
        name, kind = fields.get("name", str), fields.get("kind", str)
        if kind not in _KINDS or not name.isascii() or not name.isidentifier() or keyword.iskeyword(name):
            raise ArchiveError(f"{where}: {name[:60]!r} is not a parameter of a function.")
        default = inspect.Parameter.empty
        if "default" in fields.values:
            default = fields.get("default", type(None), bool, int, float, str)
        parameters.append(inspect.Parameter(name, _KINDS[kind], default=default))
    return _signature(parameters, where)


def signature_of_names(names: Sequence[str], positional: int, where: str) -> inspect.Signature:
    """Return the signature of which only names are known.

    Parameters
    ----------
    names : sequence of str
        Of all parameters.
    positional : int
        How many of them are given by position; the others are given by name.
    where : str
        For messages.
    """
    return _signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD
                if number < positional
                else inspect.Parameter.KEYWORD_ONLY,
            )
            for number, name in enumerate(names)
        ],
        where,
    )


def _signature(parameters: list[inspect.Parameter], where: str) -> inspect.Signature:
    try:
        return inspect.Signature(parameters)
    except ValueError as error:
        raise ArchiveError(f"{where}: the parameters are not those of a function: {error}.") from error
