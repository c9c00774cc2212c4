"""The kernel of ``trt_rt::execute_engine``: loads plans, and runs each engine as a `TRTModule` does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch

from trt_rt._core.critical import Gate
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt.engine import Engine
from trt_rt.errors import InputError, InputValueError, PlanError
from trt_rt.module.described_sizes import wrong_output_size
from trt_rt.module.in_graphs import module_of
from trt_rt.module.trt_module import TRTModule
from trt_rt.operator import register_kernel

if TYPE_CHECKING:
    from trt_rt.operator import EngineMeta, TensorMeta

__all__ = ["execute_engine", "module_of_plan"]

_Call = Callable[[Sequence[torch.Tensor], torch.Tensor], list[torch.Tensor]]

# Engines stay loaded as long as the process: a graph keeps nothing that could own one. Of the calls, those
# that were prepared last are kept. A dict does not note uses, so that a call costs no more; one that is in
# use and was dropped is prepared again.
_MOST_CALLS = 1024
_calls: dict[str, _Call] = {}
# Each call brings its description as a new string, and the hash of a long string takes long. So the calls are
# also found by a few digits of the plan's hash, which are at this place in all that trt_rt writes. Of several
# descriptions of one plan, the one that was prepared last is found so.
_DIGITS = slice(-40, -24)
_latest: dict[str, tuple[str, _Call]] = {}
_devices: dict[str, torch.device] = {}  # on which each engine was needed first
_anywhere: set[str] = set()  # descriptions whose calls look where their inputs are
_engines: dict[tuple[str, str, torch.device], Engine] = {}
_loading = Gate("trt_rt::execute_engine was called while it loaded an engine, by a callback or a finalizer.")


def execute_engine(inputs: Sequence[torch.Tensor], plan: torch.Tensor, meta: str) -> list[torch.Tensor]:
    """Run an engine on the caller's current stream; it is loaded at the first call.

    Parameters
    ----------
    inputs : sequence of torch.Tensor
        In the order of `meta`, on one device; shape tensors on the CPU. None is written to.
    plan : torch.Tensor
        The plan: uint8, one dimension. It is read at the first call only, and not changed.
    meta : str
        The text of an `EngineMeta`.

    Returns
    -------
    list of torch.Tensor
        New tensors, in the order of `meta`.

    Raises
    ------
    PlanError
        The plan is not the one that `meta` describes, `meta` is not valid, or the backend refuses the plan.
    BackendError
        The backend is missing, or cannot run on the inputs' device.
    InputError, ExecutionError, torch.OutOfMemoryError, MemoryError
        As a call of a `TRTModule`.
    """
    latest = _latest.get(meta[_DIGITS])
    if latest is not None and latest[0] == meta:
        call = latest[1]
    else:
        call = _calls.get(meta) or _loading.run(_prepare, meta, plan, inputs)
    try:
        return call(inputs, plan)
    except InputError:
        if not _is_on_another_device(meta, inputs):
            raise
    return (_calls.get(meta) or _loading.run(_prepare, meta, plan, inputs))(inputs, plan)


def module_of_plan(
    plan: bytes | memoryview, meta: EngineMeta, device: torch.device | str | None = None, name: str = ""
) -> TRTModule:
    """Return a module over the engine of a plan, whose arguments and results are those of a description.

    Parameters
    ----------
    plan : bytes-like
        The plan, which must have the description's hash. It is not needed afterwards.
    meta : EngineMeta
        Its description.
    device : torch.device or str, optional
        As for `Engine.from_bytes`.
    name : str, optional
        The engine's, for messages.

    Raises
    ------
    PlanError
        The plan has another hash or other tensors than the description says, or the backend refuses it.
    BackendError
        The backend is missing, or cannot run on the device.
    """
    name = name or f"engine {meta.sha256[:8]}"
    engine = Engine.from_bytes(plan, backend=meta.backend, device=device, name=name, sha256=meta.sha256)
    return _module_over(engine, meta)


def _module_over(engine: Engine, meta: EngineMeta) -> TRTModule:
    for kind, described, found in (
        ("inputs", meta.inputs, engine.inputs),
        ("outputs", meta.outputs, engine.outputs),
    ):
        by_name = {tensor.name: tensor for tensor in found}
        if len(described) != len(found) or not all(
            each.name in by_name and _agrees(each, by_name[each.name]) for each in described
        ):
            raise PlanError(
                f"the description of engine {engine.name!r} in a program does not fit its plan: it has the "
                f"{kind} {', '.join(map(str, found))}. Save the program again."
            )
    wrong = wrong_output_size(engine, meta)
    if wrong is not None:
        raise PlanError(
            f"the description of engine {engine.name!r} in a program does not fit its plan: {wrong}. Save "
            "the program again."
        )
    module = TRTModule(
        engine,
        [each.name for each in meta.inputs],
        [each.name for each in meta.outputs],
        aliased_io=meta.aliased_io,
    )
    if module.aliased_io != meta.aliased_io:
        # Without it, the engine would write into the graph's inputs and not into copies of them.
        raise PlanError(
            f"the description of engine {engine.name!r} in a program does not fit its plan: the outputs that "
            f"lie in the memory of inputs are {module.aliased_io}, and it says {dict(meta.aliased_io)}. Save "
            "the program again."
        )
    return module


def _agrees(described: TensorMeta, tensor: IOTensor) -> bool:
    return (
        described.dtype == tensor.dtype
        and described.is_host == tensor.is_shape_tensor
        and len(described.shape) == len(tensor.shape)
        and all(
            size == -1 or wanted == size or (isinstance(wanted, str) and wanted.startswith("?"))
            for wanted, size in zip(described.shape, tensor.shape, strict=True)
        )
    )


def _prepare(text: str, plan: torch.Tensor, inputs: Sequence[torch.Tensor]) -> _Call:
    found = _calls.get(text)
    if found is None:  # otherwise another thread has prepared it meanwhile
        from trt_rt.operator import EngineMeta  # `import trt_rt` need not wait for it

        meta = EngineMeta.parse(text)
        module = module_of(meta.module)
        if isinstance(module, TRTModule):
            found = _call_while_it_lives(text, meta, module)
        else:
            found = _call_here(text, meta, plan, inputs)
        _keep(text, found)
    return found


def _keep(text: str, call: _Call) -> None:
    """Keep a call for the next ones with the same description, and drop the oldest if there are too many."""
    _calls[text] = call
    _latest[text[_DIGITS]] = (text, call)
    for old in tuple(_calls)[: max(len(_calls) - _MOST_CALLS, 0)]:
        _calls.pop(old, None)
        _devices.pop(old, None)
        _anywhere.discard(old)
        if _latest.get(old[_DIGITS], ("",))[0] == old:
            _latest.pop(old[_DIGITS], None)


def _is_on_another_device(text: str, inputs: Sequence[torch.Tensor]) -> bool:
    """Whether inputs are on another device than the one that their engine was needed on first.

    From then on, calls of the engine look where their inputs are.
    """
    from trt_rt.operator import EngineMeta

    device = _devices.get(text)
    if device is None:
        return False
    meta = EngineMeta.parse(text)
    if _device_of(meta, inputs) == device:
        return False
    if text not in _anywhere:
        _keep(text, _call_anywhere(meta))
        _anywhere.add(text)
    return True


def _check_count(meta: EngineMeta, inputs: Sequence[torch.Tensor]) -> None:
    if len(inputs) != len(meta.inputs):
        names = [each.name for each in meta.inputs]
        raise InputValueError(f"the engine takes {len(names)} inputs, {names}; got {len(inputs)}.")


def _device_of(meta: EngineMeta, inputs: Sequence[torch.Tensor]) -> torch.device:
    _check_count(meta, inputs)
    if meta.device_input is None:
        device = torch.device(meta.device or "cpu")
    else:
        device = inputs[meta.device_input].device
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _engine(meta: EngineMeta, plan: torch.Tensor, device: torch.device) -> Engine:
    key = (meta.sha256, meta.backend, device)
    engine = _engines.get(key)
    if engine is None:
        if plan.dtype is not torch.uint8 or plan.dim() != 1:
            raise PlanError(
                "the plan of an engine in a program must be a one-dimensional uint8 tensor; got "
                f"{plan.dtype}{list(plan.shape)}."
            )
        with plain_pytorch():
            host = plan.detach().cpu().contiguous()
        size = host.numel()
        engine = _engines[key] = Engine.from_bytes(
            memoryview((ctypes.c_uint8 * size).from_address(host.data_ptr())).cast("B") if size else b"",
            backend=meta.backend,
            device=device,
            name=f"engine {meta.sha256[:8]}",
            sha256=meta.sha256,
        )
    return engine


def _load(meta: EngineMeta, plan: torch.Tensor, device: torch.device) -> _Call:
    """Return the call of an engine on one device."""
    module = _module_over(_engine(meta, plan, device), meta)
    executors = module.executors
    if len(meta.outputs) == 1 and not meta.aliased_io:
        # As below, with a frame of Python less in the call that graphs make most.
        return lambda inputs, plan: [executors.pool.current()(*inputs)]
    run = _runner(module, meta)
    return lambda inputs, plan: run(executors.pool.current(), inputs)


def _call_here(text: str, meta: EngineMeta, plan: torch.Tensor, inputs: Sequence[torch.Tensor]) -> _Call:
    """Return the call of an engine on the first device that the process uses."""
    device = _device_of(meta, inputs)
    call = _load(meta, plan, device)
    _devices[text] = device
    return call


def _call_anywhere(meta: EngineMeta) -> _Call:
    """Return a call that looks where its inputs are."""
    by_device: dict[torch.device, _Call] = {}

    def prepare(plan: torch.Tensor, device: torch.device) -> None:
        if device not in by_device:
            by_device[device] = _load(meta, plan, device)

    def call(inputs: Sequence[torch.Tensor], plan: torch.Tensor) -> list[torch.Tensor]:
        device = _device_of(meta, inputs)
        if device not in by_device:
            _loading.run(prepare, plan, device)
        return by_device[device](inputs, plan)

    return call


def _call_while_it_lives(text: str, meta: EngineMeta, found: TRTModule) -> _Call:
    """Return a call of a module of this process; the plan serves if it is gone."""
    reference = ref(found)
    run = _runner(found, meta)

    def call(inputs: Sequence[torch.Tensor], plan: torch.Tensor) -> list[torch.Tensor]:
        module = reference()
        if module is not None:
            return run(module.executor, inputs)
        loaded = _loading.run(_call_here, text, meta, plan, inputs)
        _keep(text, loaded)
        return loaded(inputs, plan)

    return call


def _runner(
    module: TRTModule, meta: EngineMeta
) -> Callable[[Any, Sequence[torch.Tensor]], list[torch.Tensor]]:
    """Return a function that runs a module's executor and lists the results.

    A call of the module itself would run hooks: those of the module are in the graph.
    """
    if meta.aliased_io:
        return partial(_run_on_copies, meta, module.aliased_outputs == "return")
    if len(meta.outputs) == 1:
        return lambda executor, inputs: [executor(*inputs)]
    return lambda executor, inputs: list(executor(*inputs))


def _run_on_copies(
    meta: EngineMeta, returns_aliases: bool, executor: Any, inputs: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Run an engine that writes into inputs: into copies of these, which are results."""
    _check_count(meta, inputs)
    given = {each.name: tensor for each, tensor in zip(meta.inputs, inputs, strict=True)}
    for name in set(meta.aliased_io.values()):
        given[name] = given[name].clone(memory_format=torch.contiguous_format)
    returned = executor(*given.values())
    others = iter(returned if isinstance(returned, tuple) else (returned,))
    if returns_aliases:
        return list(others)
    return [
        given[meta.aliased_io[each.name]] if each.name in meta.aliased_io else next(others)
        for each in meta.outputs
    ]


register_kernel(execute_engine)

hide_from_dynamo(globals())
