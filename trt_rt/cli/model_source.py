"""The model that ``trt-rt build`` is given: an ONNX file, or a callable that returns a model."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trt_rt.cli.streams import prepare_streams
from trt_rt.errors import CompileError, TRTError

__all__ = ["is_same_file", "model_options", "refuse_exit"]


def model_options(model: str, *, needs_inputs: bool = True) -> dict[str, Any]:
    """Return the arguments of `trt_rt.build` for a model.

    Parameters
    ----------
    model : str
        Path of an ONNX file, or ``module:callable``. The module is looked for in the current folder too.
    needs_inputs : bool
        Whether the callable must return the inputs, too; otherwise it may return the model alone.

    Returns
    -------
    dict
        With "model" and, for a callable, whatever else it returns.

    Raises
    ------
    CompileError
        There is no such model, its code raises or exits, or what it returns is not a model.
    """
    if model.endswith(".onnx") or os.path.exists(model):
        if not os.path.isfile(model):
            raise CompileError(f"there is no ONNX file {model!r}.")
        return {"model": Path(model).absolute()}
    module_name, _, attribute = model.partition(":")
    if not module_name or not attribute:
        raise CompileError(f"there is no file {model!r}, and it is not module:callable either.")
    try:
        with _importable_folder(os.getcwd()), refuse_exit(model):
            made = _find_callable(module_name, attribute, model)()
    except TRTError:
        raise
    except Exception as error:
        raise CompileError(
            f"the code of {model} raised {type(error).__name__}: {error} "
            "(run again with --debug for the traceback)"
        ) from error
    if isinstance(made, dict) and "model" in made:
        return dict(made)
    if isinstance(made, tuple) and len(made) in (2, 3):
        return dict(zip(("model", "arg_inputs", "dynamic_shapes"), made, strict=False))
    if not needs_inputs and callable(made):
        return {"model": made}
    raise CompileError(
        f"{model} returned {type(made).__name__}: it must return (model, arg_inputs), (model, arg_inputs, "
        "dynamic_shapes), or a dict of arguments of trt_rt.build with a 'model'."
    )


@contextmanager
def refuse_exit(name: str) -> Iterator[None]:
    """Run code of the model `name`, and turn its ``sys.exit`` and the like into errors.

    ``sys.exit(0)`` would otherwise end the command as if it had built the plan. Standard streams that the
    code closes are replaced by ones that lead nowhere.

    Raises
    ------
    CompileError
        The code called ``sys.exit``, or raised something else that is no Exception, such as GeneratorExit.
    """
    try:
        yield
    except SystemExit as error:
        code = "" if error.code is None else repr(error.code)
        raise CompileError(f"the code of {name} called sys.exit({code}), so nothing was built.") from error
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise CompileError(
            f"the code of {name} raised {type(error).__name__}, so nothing was built."
        ) from error
    finally:
        prepare_streams()


def is_same_file(one: str, other: str) -> bool:
    """Whether two paths lead to the same file, which need not exist."""
    with suppress(OSError):
        return os.path.samefile(one, other)
    return os.path.abspath(one) == os.path.abspath(other)


def _find_callable(module_name: str, attribute: str, name: str) -> Callable[[], Any]:
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, and a module that it imports does not
        raise CompileError(f"there is no Python module {module_name!r} (for {name!r}).") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise CompileError(f"module {module_name!r} has no callable {attribute!r}.")
    return found  # type: ignore[no-any-return]


@contextmanager
def _importable_folder(folder: str) -> Iterator[None]:
    """Let modules of a folder be imported. Their code may change ``sys.path`` and the current folder."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
