"""What one call of an engine did, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt.module import TRTModule
from trt_rt.observe.span_tree import TimedSpan

__all__ = ["EngineCall", "explained_call"]

_NEW_SHAPES = ("set_input_shape", "infer_shapes", "set_optimization_profile_async")
_NEW_CONTEXTS = ("make context", "make graph context")


@dataclass(frozen=True)
class EngineCall:
    """One call of an engine.

    Attributes
    ----------
    engine : str
        The name of the engine.
    shapes : str
        The shapes of the arguments.
    served : str
        ``enqueue``: TensorRT enqueued the engine. ``replay``: a CUDA graph was launched. ``capture``: the
        engine was enqueued, and captured in a CUDA graph for later calls.
    executor : str
        Whose execution context made the call: a stream's or, on a CPU, a thread's.
    profile : int
        The optimization profile.
    outputs : str
        Where the outputs are: ``fresh``, ``pre-allocated``, or by TensorRT's ``allocator``.
    copied : tuple of str
        The arguments that were copied before the engine could read them, or moved from another device.
    copy_reasons : dict
        Of these, why.
    rebound : tuple of str
        The tensors whose addresses TensorRT was told.
    in_place, copied_by_graph : tuple of str
        The tensors that the graph of the call reads and writes where callers have them, and those that nodes
        of it copy. Empty without a graph.
    graph : str
        Why a graph did or did not serve the call; "" while CUDA graphs are off.
    has_new_shapes : bool
        Whether TensorRT was told shapes, because they differ from those of the call before.
    made_context : bool
        Whether an execution context was made: for a stream, after a change of modes, or for a graph.
    runs_on_host : bool
        Whether the engine runs on the CPU, and so within the call.
    waits_for_layers : bool
        Whether a profiler made TensorRT wait for the device.
    host_us : float
        The time on the host, in microseconds.
    parts_us : dict
        Of it, by what was done: ``copy``, ``shapes``, ``context``, ``addresses``, ``enqueue``, ``rest``.
    """

    engine: str
    shapes: str
    served: str
    executor: str
    profile: int
    outputs: str
    copied: tuple[str, ...]
    copy_reasons: dict[str, str]
    rebound: tuple[str, ...]
    in_place: tuple[str, ...]
    copied_by_graph: tuple[str, ...]
    graph: str
    has_new_shapes: bool
    made_context: bool
    runs_on_host: bool
    waits_for_layers: bool
    host_us: float
    parts_us: dict[str, float]

    def costs(self) -> Iterator[tuple[float, str]]:
        """Yield what the call spent its time on: microseconds, and a clause that says why."""
        if self.served == "capture":
            yield (
                self.host_us - self.parts_us["copy"],
                f"the capture of a CUDA graph for engine {self.engine!r}: {self.graph}",
            )
        else:
            shapes = f"the shapes {self.shapes}, which the call of {self.engine!r} before did not have"
            yield self.parts_us["shapes"], shapes
            yield self.parts_us["context"], f"a new execution context for engine {self.engine!r}"
            yield self.parts_us["addresses"], f"new addresses, which TensorRT was told: {_list(self.rebound)}"
            yield self.parts_us["enqueue"], self._enqueue_clause()
            yield self.parts_us["rest"], self._rest_clause()
        for name in self.copied:
            yield (
                self.parts_us["copy"],
                (f"a copy of input {name!r} of engine {self.engine!r}: {self.copy_reasons[name]}"),
            )

    def _enqueue_clause(self) -> str:
        if self.runs_on_host:
            return f"the run of engine {self.engine!r} on the CPU"
        clause = f"TensorRT's enqueueing of engine {self.engine!r}"
        if self.waits_for_layers:
            return f"{clause}, which waits for the device to time layers while profiling is on"
        if self.graph and self.served == "enqueue":
            return f"{clause}, without a CUDA graph: {self.graph}"
        return clause

    def _rest_clause(self) -> str:
        if self.served != "replay":
            return f"trt_rt's own work for engine {self.engine!r}"
        on_host = ", which is its run on the CPU here" if self.runs_on_host else ""
        return f"the launch of the CUDA graph of engine {self.engine!r}{on_host}"

    def lines(self) -> Iterator[str]:
        """Yield what the call did, in sentences."""
        how = {
            "enqueue": "TensorRT enqueued it",
            "replay": "a CUDA graph was launched",
            "capture": "TensorRT enqueued it, and it was captured in a CUDA graph",
        }[self.served]
        yield (
            f"engine {self.engine!r} {self.shapes}: {how}, in {self.host_us:.1f} µs, by the executor of "
            f"{self.executor}, with optimization profile {self.profile}; outputs: {self.outputs}."
        )
        if self.made_context:
            yield "An execution context was made, which later calls keep."
        if self.has_new_shapes:
            yield "The shapes differ from those of the call before, so TensorRT was told them."
        for name in self.copied:
            yield f"Input {name!r} was copied: {self.copy_reasons[name]}."
        if self.rebound:
            yield f"TensorRT was told new addresses of {_list(self.rebound)}."
        if self.graph:
            yield f"CUDA graphs are on: {self.graph}."
        if self.in_place and self.served != "enqueue":
            yield f"The graph uses {_list(self.in_place)} where the caller has them."
        if self.copied_by_graph and self.served != "enqueue":
            yield f"The graph copies {_list(self.copied_by_graph)}."


def explained_call(timed: TimedSpan, module: TRTModule, *, made_contexts: int) -> EngineCall:
    """Return what a call of a module did.

    Parameters
    ----------
    timed : TimedSpan
        The call.
    module : TRTModule
        What was called.
    made_contexts : int
        How many executors the module has got since before the call.
    """
    last = timed.last_call or {"profile": 0, "outputs": "fresh", "graphs": None}
    copies = {each.span.detail: each.span.reason for each in timed.all("copy", "move")}
    # What a graph's own context is told is part of its capture.
    addresses = dict.fromkeys(each.span.detail for each in timed.all("set_tensor_address"))
    graphs = last["graphs"]
    served = timed.span.served
    parts = {
        "copy": _sum(timed, "copy", "move"),
        "shapes": _sum(timed, *_NEW_SHAPES),
        "context": _sum(timed, *_NEW_CONTEXTS),
        "addresses": _sum(timed, "set_tensor_address"),
        "enqueue": _sum(timed, "execute_async_v3") if served != "replay" else 0.0,
    }
    parts["rest"] = max(timed.us - sum(parts.values()), 0.0)
    return EngineCall(
        engine=timed.span.engine,
        shapes=timed.span.detail,
        served=served,
        executor=_executor(module),
        profile=last["profile"],
        outputs=last["outputs"],
        copied=tuple(copies),
        copy_reasons=copies,
        rebound=tuple(addresses) if served == "enqueue" else (),
        in_place=tuple(graphs["in_place"]) if graphs and served != "enqueue" else (),
        copied_by_graph=tuple(graphs["copied"]) if graphs and served != "enqueue" else (),
        graph=_graph_reason(timed, module, graphs),
        has_new_shapes=timed.span.counts["shape_changes"] > 0,
        made_context=made_contexts > 0 or any(timed.all(*_NEW_CONTEXTS)),
        runs_on_host=module.engine.device.type == "cpu",
        waits_for_layers=module.modes.profiler is not None,
        host_us=timed.us,
        parts_us=parts,
    )


def _sum(timed: TimedSpan, *kinds: str) -> float:
    return sum(each.us for each in timed.all(*kinds))


def _executor(module: TRTModule) -> str:
    device = module.engine.device
    if device.type == "cuda":
        caller = f"stream {torch.cuda.current_stream(device).cuda_stream:#x} of {device}"
    else:
        caller = "this thread"
    return f"{caller} ({module.stats()['contexts']} of at most {module.max_contexts})"


def _graph_reason(timed: TimedSpan, module: TRTModule, graphs: dict[str, Any] | None) -> str:
    """Return why a graph did or did not serve a call; "" while graphs are off."""
    if graphs is None:
        return ""
    if timed.span.counts["invalidated_captures"]:
        return "CUDA invalidated the capture, usually because another thread waited for the device"
    if timed.span.counts["captures"]:
        return "no graph had these shapes and addresses yet; later calls with them replay this one"
    if timed.span.counts["replays"]:
        return "a graph with these shapes and addresses was there"
    if graphs["is_in_callers_capture"]:
        return "the caller captures the current stream, and the engine goes into that graph"
    if module.engine.handle.streams_weights:
        return "the engine streams weights, for which TensorRT waits for the device"
    if not graphs["may_capture"]:
        return "CUDA invalidated too many captures in succession, so none is tried any more"
    if graphs["kept"] >= graphs["capacity"]:
        return (
            f"{graphs['kept']} graphs are kept, which is the limit; raise max_graphs, or call with fewer "
            "shapes and addresses"
        )
    if graphs["written"]:
        return (
            f"the engine writes into {_list(graphs['written'])}, which a graph cannot copy, and "
            f"{graphs['of_shapes']} graphs for other addresses are kept; pass the same tensors again"
        )
    return (
        f"{graphs['of_shapes']} graphs for other addresses of these shapes are kept; the addresses get one "
        "when they have come 256 times"
    )


def _list(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(map(repr, names))
