"""Measures calls of engines and programs side by side, compares results, and draws a report.

The packages of the extra ``trt_rt[bench]`` are needed.
"""

from trt_rt.report.bench import BenchSettings, bench
from trt_rt.report.comparison import Change, compare
from trt_rt.report.measuring import Timing
from trt_rt.report.modes import MODES, Mode, find_mode
from trt_rt.report.page import render_page
from trt_rt.report.result import Case, Result, read_result, write_result
from trt_rt.report.samples import Times
from trt_rt.report.target import EngineTarget, Peer, ProgramTarget, Target, Workload

__all__ = [
    "MODES",
    "BenchSettings",
    "Case",
    "Change",
    "EngineTarget",
    "Mode",
    "Peer",
    "ProgramTarget",
    "Result",
    "Target",
    "Times",
    "Timing",
    "Workload",
    "bench",
    "compare",
    "find_mode",
    "read_result",
    "render_page",
    "write_result",
]
