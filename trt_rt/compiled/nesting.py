"""Python code that takes a program's arguments apart and puts its results together.

PyTorch's ``pytree`` does this for any structure by looking at each value's type. Here the structure is known,
so that a dict of two tensors costs two subscripts.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from trt_rt.errors import InputTypeError, InputValueError

__all__ = ["Names", "argument_code", "refuse_constant", "result_code"]


class Names:
    """The global names of generated code.

    Attributes
    ----------
    values : dict
        Of name to value.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._taken: set[str] = set()

    def reserve(self, name: str) -> None:
        """Keep a name for a parameter."""
        self._taken.add(name)

    def local(self, wanted: str) -> str:
        """Return a name that nothing else has."""
        base = "".join(letter if letter.isalnum() else "_" for letter in wanted) or "value"
        if base[0].isdigit() or keyword.iskeyword(base):
            base = f"_{base}"
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name

    def bind(self, wanted: str, value: Any) -> str:
        """Return a new global name for a value."""
        name = self.local(wanted)
        self.values[name] = value
        return name


def argument_code(
    names: Names, spec: TreeSpec, signature: inspect.Signature | None
) -> tuple[str, str, list[str], list[str]]:
    """Return how the generated function takes its arguments apart.

    Parameters
    ----------
    names : Names
        Gets what the code refers to.
    spec : TreeSpec
        Of (args, kwargs).
    signature : inspect.Signature, optional
        Of the model's ``forward``: parameters keep its names, kinds and defaults.

    Returns
    -------
    parameters : str
        As they stand in the function's first line.
    passed_on : str
        The expressions that pass them on to another call.
    lines : list of str
        The first statements.
    leaves : list of str
        The local names that the leaves of `spec` have after these.
    """
    args_spec, kwargs_spec = _children(spec)
    keywords = dict(zip(kwargs_spec.context, _children(kwargs_spec), strict=True))
    parameters = _Parameters(names, signature)
    leaves: list[str] = []
    lines: list[str] = []
    for position, child in enumerate(_children(args_spec)):
        name = parameters.positional(position)
        lines += _take_apart(names, child, name, name, leaves)
    for key, child in keywords.items():
        name = parameters.by_keyword(key)
        lines += _take_apart(names, child, name, name, leaves)
    code = parameters.code()
    return code, parameters.passed_on(), [*parameters.checks(), *lines], leaves


class _Parameters:
    """The parameters of the generated function, as the example call uses them."""

    def __init__(self, names: Names, signature: inspect.Signature | None) -> None:
        self._names = names
        self._given = list(signature.parameters.values()) if signature is not None else []
        self._locals: dict[str, str] = {}
        self._variadic: list[str] = []
        self._extra_keywords: dict[str, str] = {}
        self._unnamed: list[str] = []
        self._defaults: dict[str, tuple[str, Any]] = {}
        self._passed_on: list[str] = []
        for parameter in self._given:
            names.reserve(parameter.name)

    def positional(self, position: int) -> str:
        plain = [
            parameter
            for parameter in self._given
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        if position < len(plain):
            return self._local(plain[position].name)
        name = self._names.local(f"arg_{position}")
        (self._variadic if self._given else self._unnamed).append(name)
        return name

    def by_keyword(self, key: str) -> str:
        if any(parameter.name == key for parameter in self._given):
            return self._local(key)
        self._extra_keywords[key] = self._names.local(key)
        return self._extra_keywords[key]

    def _local(self, name: str) -> str:
        # A parameter keeps its name whatever else is called so: callers use it.
        self._locals.setdefault(name, name)
        return name

    def code(self) -> str:
        positional: list[str] = list(self._unnamed)
        keyword_only: list[str] = []
        has_positional_only = False
        for parameter in self._given:
            is_optional = parameter.default is not parameter.empty
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if parameter.name not in self._locals and not is_optional:
                continue
            text = parameter.name
            if is_optional:
                default = self._names.bind(f"default_{parameter.name}", parameter.default)
                self._defaults[parameter.name] = (default, parameter.default)
                text += f"={default}"
            if parameter.kind is parameter.KEYWORD_ONLY:
                keyword_only.append(text)
                continue
            if has_positional_only and parameter.kind is not parameter.POSITIONAL_ONLY:
                positional.append("/")
                has_positional_only = False
            has_positional_only |= parameter.kind is parameter.POSITIONAL_ONLY
            positional.append(text)
        if has_positional_only:
            positional.append("/")
        if self._variadic:
            positional.append("*variadic")
        elif keyword_only or self._extra_keywords:
            positional.append("*")
        keyword_only += self._extra_keywords.values()
        names = [text.partition("=")[0] for text in positional if text not in ("/", "*")]
        keys = [text.partition("=")[0] for text in keyword_only]
        self._passed_on = [*names, *(f"{key}={key}" for key in keys)]
        return ", ".join([*positional, *keyword_only])

    def passed_on(self) -> str:
        """The parameters as arguments; known after `code`."""
        return ", ".join(self._passed_on)

    def checks(self) -> list[str]:
        """Lines that refuse another value of a parameter that the example call left at its default."""
        lines = []
        for name, (default, value) in self._defaults.items():
            if name not in self._locals:
                refuse = self._names.bind(f"refuse_{name}", refuse_constant(name, value))
                lines.append(f"if {name} is not {default}: {refuse}({name})")
        if self._variadic:
            refuse = self._names.bind("refuse_variadic", _refuse_length("*args", len(self._variadic)))
            lines.append(f"if len(variadic) != {len(self._variadic)}: {refuse}(variadic)")
            lines.append(f"{', '.join(self._variadic)}, = variadic")
        return lines


def _take_apart(names: Names, spec: TreeSpec, value: str, path: str, leaves: list[str]) -> list[str]:
    """Lines that take a local value apart; `leaves` gets the names that its leaves then have.

    `path` is what callers know the value as.
    """
    if spec.is_leaf():
        leaves.append(value)
        return []
    children = _children(spec)
    keys: Sequence[Any]
    if spec.type in (list, tuple):
        keys = range(len(children))
        refuse = names.bind("refuse_sequence", _refuse_sequence(path, spec.type, len(children)))
    elif spec.type is dict and all(type(key) in (str, int) for key in spec.context):
        keys = list(spec.context)
        refuse = names.bind("refuse_dict", _refuse_dict(path, list(keys)))
    else:
        return _take_apart_by_pytree(names, spec, value, path, leaves)
    kind = spec.type.__name__
    lines = [f"if type({value}) is not {kind} or len({value}) != {len(children)}: {refuse}({value})"]
    items = [names.local(f"{value}_{key}") for key in keys]
    if spec.type is dict and items:
        lines += [
            "try:",
            *(f"    {item} = {value}[{key!r}]" for item, key in zip(items, keys, strict=True)),
            "except KeyError:",
            f"    {refuse}({value})",
        ]
    elif items:
        lines.append(f"{', '.join(items)}, = {value}")
    for item, key, child in zip(items, keys, children, strict=True):
        lines += _take_apart(names, child, item, f"{path}[{key!r}]", leaves)
    return lines


def _take_apart_by_pytree(
    names: Names, spec: TreeSpec, value: str, path: str, leaves: list[str]
) -> list[str]:
    """For None, and for classes that are registered with PyTorch, such as the outputs of transformers."""
    flatten = names.bind("flatten", _flatten(path, spec))
    own = [names.local("leaf") for _ in range(spec.num_leaves)]
    leaves += own
    target = f"{', '.join(own)}, = " if own else ""
    return [f"{target}{flatten}({value})"]


def result_code(names: Names, spec: TreeSpec, leaves: Iterator[str]) -> str:
    """Return the expression that puts results together from the expressions in `leaves`."""
    if spec.is_leaf():
        return next(leaves)
    children = _children(spec)
    if spec.type is type(None):
        return "None"
    if spec.type in (list, tuple):
        parts = ", ".join(result_code(names, child, leaves) for child in children)
        if spec.type is list:
            return f"[{parts}]"
        return f"({parts},)" if children else "()"
    if spec.type is dict and all(type(key) in (str, int) for key in spec.context):
        pairs = zip(spec.context, children, strict=True)
        return "{" + ", ".join(f"{key!r}: {result_code(names, child, leaves)}" for key, child in pairs) + "}"
    unflatten = names.bind("unflatten", lambda values: tree_unflatten(values, spec))
    return f"{unflatten}([{', '.join(next(leaves) for _ in range(spec.num_leaves))}])"


def _children(spec: TreeSpec) -> list[TreeSpec]:
    return list(spec.children()) if callable(getattr(spec, "children", None)) else list(spec.children_specs)


def _flatten(name: str, spec: TreeSpec) -> Callable[[Any], list[Any]]:
    def flatten(value: Any) -> list[Any]:
        leaves, found = tree_flatten(value)
        if found != spec:
            raise InputTypeError(f"{name}: the program was compiled for the structure {spec}, not {found}")
        return leaves

    return flatten


def _refuse_sequence(name: str, kind: type[Any], length: int) -> Callable[[Any], None]:
    def refuse(value: Any) -> None:
        if isinstance(value, kind) and not hasattr(value, "_fields") and len(value) == length:
            return
        raise InputTypeError(
            f"{name}: the program was compiled for a {kind.__name__} of {length}, and this is "
            f"{_description(value)}"
        )

    return refuse


def _refuse_length(name: str, length: int) -> Callable[[Any], None]:
    def refuse(value: Any) -> None:
        raise InputValueError(f"{name}: the program was compiled for {length}, and {len(value)} came")

    return refuse


def _refuse_dict(name: str, keys: list[Any]) -> Callable[[Any], None]:
    def refuse(value: Any) -> None:
        if isinstance(value, dict) and set(value) == set(keys):
            return
        what = f"a dict with the keys {sorted(map(str, value))}" if isinstance(value, dict) else None
        raise InputTypeError(
            f"{name}: the program was compiled for a dict with the keys {sorted(map(str, keys))}, and this "
            f"is {what or _description(value)}"
        )

    return refuse


def refuse_constant(name: str, constant: Any) -> Callable[[Any], None]:
    """Return what raises unless a value equals the constant that a program was compiled for."""

    def refuse(value: Any) -> None:
        try:
            if type(value) is type(constant) and not isinstance(value, torch.Tensor) and value == constant:
                return
        except Exception:  # a user's __eq__
            pass
        raise InputValueError(
            f"{name}: the program was compiled for {constant!r}, and this is {_description(value)}; compile "
            "again with example inputs that have it"
        )

    return refuse


def _description(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, (bool, int, float, str, type(None))):
        return repr(value)
    return f"a {type(value).__name__}"
