"""The command ``trt-rt``."""

from trt_rt.cli.main import main

__all__ = ["main"]
