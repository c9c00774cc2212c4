"""A compiled model: a module that runs engines, and PyTorch operators between them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from trt_rt._core.call import FunctionCallBase, show_call
from trt_rt.compiled.example_arguments import example_arguments
from trt_rt.compiled.generated_call import GeneratedCall
from trt_rt.compiled.partition import Partition
from trt_rt.module import TRTModule

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.utils._pytree import TreeSpec

    from trt_rt.compiled.exported import KeepPlan

__all__ = ["Program"]


class Program(FunctionCallBase, torch.nn.Module):
    """A compiled model, called as the model is; `trt_rt.compile` makes it.

    Every control of `trt_rt.runtime` works on it: its engines are submodules (``engine_0``, ``engine_1``,
    ...). Weights of engines are in the engines.

    Attributes
    ----------
    weights : torch.nn.Module
        Parameters and buffers of the operators that PyTorch runs, under the model's names. They can be
        written in place.
    partition : Partition
        What runs where, and why.
    code : str
        The Python source of the call.
    computes_outside_engines : bool
        Whether PyTorch operators do something on the device, so that one CUDA graph of the whole program is
        better than one for each engine.
    is_frozen : bool
        Always True: parameters and buffers are never replaced by others, so that a CUDA graph of the whole
        program need not look for that.

    Notes
    -----
    For inference: the program computes without gradients. It stays on the device that it was compiled for,
    and in the mode, training or evaluation, that the model was in. Copies (`copy.deepcopy`) share the
    engines' weights and have execution contexts and buffers of their own.
    """

    is_frozen = True

    def __init__(
        self,
        call: GeneratedCall,
        engines: dict[str, TRTModule],
        state: torch.nn.Module,
        partition: Partition,
    ) -> None:
        """Put a program together.

        Parameters
        ----------
        call : GeneratedCall
            The code.
        engines : dict
            By name of the submodule.
        state : torch.nn.Module
            Has the weights and branches that the code names, under their paths.
        partition : Partition
            For `partition`.
        """
        super().__init__()
        for name, engine in engines.items():
            self.add_module(name, engine)
        self.weights = torch.nn.Module()
        for path in call.weights.values():
            _share(state, self.weights, path)
        self.partition = partition
        self.code = call.source
        self.computes_outside_engines = call.computes
        self._source = call
        function, self._run, forward = call.bind(self, self.weights)
        self._call_function(function)
        # Of the object: torch.export reads its parameters.
        vars(self)["forward"] = forward
        super().train(False)

    @property
    def signature(self) -> inspect.Signature:
        """The parameters of a call: names and defaults of the model's ``forward``."""
        return inspect.signature(self._run)

    @property
    def engines(self) -> dict[str, TRTModule]:
        """The modules of the engines, by the names of the submodules."""
        return {name: module for name, module in self.named_children() if isinstance(module, TRTModule)}

    @property
    def nesting(self) -> tuple[TreeSpec, TreeSpec]:
        """How arguments, as ``(args, kwargs)``, and results are nested."""
        return self._source.convention.in_spec, self._source.convention.out_spec

    def exported(self, *, keep_plan: KeepPlan | None = None) -> ExportedProgram:
        """Return the program as PyTorch's own tools take it; nothing is traced.

        Parameters
        ----------
        keep_plan : callable, optional
            ``keep_plan(name, plan)`` is called with the name of each plan and a memoryview of its bytes, one
            plan after the other. It returns the tensor that stands for the plan: uint8, of the same length.
            Default: a copy of the plan. `trt_rt.save` writes the plan to the file instead, so that it needs
            memory for one plan only.

        Returns
        -------
        torch.export.ExportedProgram
            With the program's weights, and its plans. An engine is a call of
            ``trt_rt::execute_engine``, which ``import trt_rt`` registers. It is not functional:
            ``run_decompositions({})`` makes it so.

        Raises
        ------
        BackendError
            A backend cannot serialize its engine.
        """
        # Takes longer to import than all of trt_rt.
        from trt_rt.compiled.exported import exported_program

        return exported_program(self._source, self.engines, self.weights, keep_plan)

    def example_arguments(
        self, shapes: Mapping[str, tuple[int, ...]] | None = None, *, batch: int | None = None
    ) -> tuple[dict[str, tuple[int, ...]], tuple[Any, ...], dict[str, Any]]:
        """Return random arguments that the program takes, the same at every call.

        Parameters
        ----------
        shapes : mapping, optional
            Sizes of tensor arguments, by their names in the graph. Default: those of the example that the
            program was compiled with, where they are known; else the least that it takes.
        batch : int, optional
            The first size of every tensor whose first size varies.

        Returns
        -------
        tuple of dict, tuple and dict
            The shapes of all tensor arguments by name, positional arguments, and keyword arguments.

        Raises
        ------
        InputError
            There is no such argument, or a shape does not fit it.
        """
        return example_arguments(self._source, shapes or {}, batch)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; see `forward`. Calls of programs go to C code, and Dynamo reads this."""
        if torch.compiler.is_dynamo_compiling():
            return torch.nn.Module.__call__(self, *args, **kwargs)
        return super().__call__(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program on the caller's current stream; a call of the program also runs hooks.

        Parameters
        ----------
        *args, **kwargs
            As the model takes them. Tensors must have the dtypes of the example inputs and sizes in their
            ranges, other values must equal those of the example inputs.

        Returns
        -------
        object
            What the model returns.

        Raises
        ------
        InputError
            An argument is not one that the program was compiled for; the message says what is allowed.
        ExecutionError
            TensorRT or CUDA refuses.
        """
        return self._run(*args, **kwargs)

    def train(self, mode: bool = True) -> Program:
        """Do nothing: the mode is part of the compiled model."""
        return self

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Program:
        """Refuse to move or cast weights; ``.to()`` of what is already so does nothing."""
        for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
            changed = fn(tensor)
            if changed.dtype != tensor.dtype or changed.device != tensor.device:
                raise RuntimeError(
                    f"the program is compiled for {tensor.device} and {tensor.dtype} ({name!r}) and stays "
                    "so: move or cast the model and compile that"
                )
        return self

    def extra_repr(self) -> str:
        """Return the text that ``print(program)`` shows in brackets."""
        return self.partition.summary()

    def __copy__(self) -> Program:
        """A program with execution contexts of its own, over the same engines, weights and buffers."""
        engines = {name: copy.copy(module) for name, module in self.engines.items()}
        return Program(self._source, engines, self.weights, self.partition)

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        """A program with buffers and execution contexts of its own, over the same engines."""
        engines = {name: copy.deepcopy(module, memo) for name, module in self.engines.items()}
        made = Program(self._source, engines, copy.deepcopy(self.weights, memo), self.partition)
        memo[id(self)] = made
        return made

    def __reduce__(self) -> Any:
        """Programs are not pickled: a pickle runs code when it is read."""
        raise TypeError("a Program cannot be pickled: trt_rt.save writes it to a file, trt_rt.load reads it")


show_call(Program)


def _share(source: torch.nn.Module, target: torch.nn.Module, path: str) -> None:
    """Give `target` what `source` has at a path, under the same path."""
    *owners, attribute = path.split(".")
    for owner in owners:
        source = source.get_submodule(owner)
        if owner not in dict(target.named_children()):
            target.add_module(owner, torch.nn.Module())
        target = target.get_submodule(owner)
    value = getattr(source, attribute)
    if isinstance(value, torch.nn.Parameter):
        target.register_parameter(attribute, value)
    elif isinstance(value, torch.nn.Module):
        target.add_module(attribute, value)
    elif isinstance(value, torch.Tensor):
        target.register_buffer(attribute, value, persistent=_is_persistent(source, attribute))
    else:
        setattr(target, attribute, value)


def _is_persistent(owner: torch.nn.Module, name: str) -> bool:
    return name in owner._buffers and name not in owner._non_persistent_buffers_set
