"""The control that records a trace of everything that calls do."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.profiler
from torch._C._profiler import _ExperimentalConfig, _RecordFunctionFast
from torch.export import ExportedProgram

from trt_rt._core.critical import Scope
from trt_rt.backend.atomic_file import check_writable, write_atomically
from trt_rt.errors import SettingError
from trt_rt.module import TRTModule
from trt_rt.module.call_observer import Span
from trt_rt.module.find_engines import as_module
from trt_rt.module.layer_profile import new_profiler
from trt_rt.module.mode_override import ModeOverride
from trt_rt.observe.chrome_trace import MARK, RecordedSpans, completed_trace
from trt_rt.observe.observation import Observation

__all__ = ["Trace", "profile"]


def profile(
    module: torch.nn.Module | ExportedProgram, path: str | os.PathLike[str], *, layers: bool = True
) -> Scope[Trace]:
    """Record a trace of the code in a ``with`` block, and write it as one file for Perfetto or Chrome.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything with engines anywhere in it.
    path : str or path-like
        The trace, as JSON; compressed if the name ends in ``.gz``. https://ui.perfetto.dev opens it.
    layers : bool, optional
        Time TensorRT's layers too, of engines without CUDA graphs. TensorRT then waits for the device in
        each call, and contexts are made anew at the next call. False leaves calls as they are.

    Returns
    -------
    context manager
        ``as`` binds a `Trace`, which is called in place of the module.

    Raises
    ------
    OSError
        At entry: the file cannot be written. At exit: it could not be written.
    SettingError
        At entry: a profiler of PyTorch, or another `profile`, records this process already.
    ValueError
        At entry: there is no engine in `module`.
    TypeError
        At entry: `module` is neither a module nor a program.

    Notes
    -----
    The trace has the operators of all threads that torch.profiler records (on a GPU also kernels and CUDA's
    runtime), and on the same time axis the calls of the module's engines, named by engine and shapes, after
    how they were served: *enqueue*, *replay* or *capture*. Within them are copies of arguments, shapes and
    addresses that TensorRT is told, new execution contexts, and the enqueueing itself.

    TensorRT tells how long each layer took, not when it began. Layers are drawn one after the other from the
    beginning of their run, on a track of their own.

    If the block raises, also by Ctrl-C, what was recorded until then is written. A call that is observed
    takes several microseconds longer. Outside of the context calls are made as if this did not exist.

    Examples
    --------
    >>> with profile(module, "trace.json") as trace:
    ...     y = trace(x)
    >>> trace.path.exists()
    True
    """
    return _Profile(module, path, layers=layers)


class Trace:
    """A trace that is being recorded, or has been. Calling it calls the module.

    Attributes
    ----------
    path : pathlib.Path
        The file, once the ``with`` block has ended.
    """

    def __init__(self, module: torch.nn.Module, path: Path) -> None:
        self._module = module
        self.path = path

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return self._module(*args, **kwargs)


class _Profile(Scope[Trace]):
    def __init__(
        self, module: torch.nn.Module | ExportedProgram, path: str | os.PathLike[str], *, layers: bool
    ) -> None:
        self._given = module
        self._path = Path(path)
        self._layers = layers

    def _new_entry(self) -> _Recording:
        module = as_module(self._given)
        if torch.autograd.profiler._is_profiler_enabled:
            raise _already_recorded()
        recorder = _Recorder()
        observation = Observation(module, recorder)
        check_writable(self._path)
        return _Recording(Trace(module, self._path), observation, recorder, layers=self._layers)


class _Recording:
    """One entry of `profile`."""

    def __init__(self, trace: Trace, observation: Observation, recorder: _Recorder, *, layers: bool) -> None:
        self._trace = trace
        self._observation = observation
        self._recorder = recorder
        self._override = ModeOverride(
            {engine: recorder.layer_profiler(engine) for engine in observation.engines if layers}
        )
        self._profiler: torch.profiler.profile | None = None
        self._is_stopped = False

    def begin(self) -> Trace:
        # PyTorch's profiler ends the process if two threads start it at once.
        if _recording.setdefault(0, self) is not self:
            raise _already_recorded()
        self._override.begin()
        activities = [torch.profiler.ProfilerActivity.CPU]
        if any(engine.engine.device.type == "cuda" for engine in self._observation.engines):
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        profiler = torch.profiler.profile(
            activities=activities, experimental_config=_ExperimentalConfig(profile_all_threads=True)
        )
        profiler.start()
        self._profiler = profiler
        self._observation.begin()
        return self._trace

    def end(self, may_wait: bool) -> None:
        """Write the trace. Idempotent."""
        self._observation.end()
        self._override.end()
        if self._profiler is None:
            self._make_way()
            return
        if not self._is_stopped:
            self._profiler.stop()
            self._is_stopped = True
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "trace.json")
                self._profiler.export_chrome_trace(str(file))
                recorded = file.read_bytes()
        finally:
            self._make_way()
        data = completed_trace(recorded, self._recorder.spans, is_compressed=self._trace.path.suffix == ".gz")
        write_atomically(self._trace.path, data)
        self._profiler = None

    def _make_way(self) -> None:
        if _recording.get(0) is self:
            del _recording[0]


_recording: dict[int, _Recording] = {}
"""The recording of this process, under 0. `dict.setdefault` is one step for threads and interrupts."""


def _already_recorded() -> SettingError:
    return SettingError(
        "profile cannot be entered: a profiler of PyTorch, or another profile, records this process already. "
        "Leave it first."
    )


class _Recorder:
    """Marks spans in the events of torch.profiler, which keeps their times."""

    def __init__(self) -> None:
        self.spans = RecordedSpans()
        self._numbers = count()
        self._runs = _Runs()

    def begin(self, span: Span) -> Callable[[], object]:
        number = next(self._numbers)
        self.spans.by_number[number] = span
        if span.kind == "execute_async_v3":
            self._runs.number = number
        mark = _RecordFunctionFast(f"{MARK}{number}")
        mark.__enter__()
        return partial(mark.__exit__, None, None, None)

    def layer_profiler(self, engine: TRTModule) -> dict[str, Any]:
        """Return the mode that makes TensorRT tell of an engine's layers; none if a mode excludes that."""
        modes = engine.executors.modes
        if engine.executors.uses_cuda_graphs or modes.whole_graph or modes.profiler is not None:
            return {}
        return {"profiler": new_profiler(engine.engine.api, engine.name, self._note_layer)}

    def _note_layer(self, layer: str, ms: float) -> None:
        """Note a layer of the run that this thread has enqueued last."""
        if self._runs.number is not None:
            self.spans.layers.setdefault(self._runs.number, []).append((layer, ms))


class _Runs(threading.local):
    """The number of the thread's last span of a run."""

    number: int | None = None
