"""Engines: plans loaded onto a device, and everything that belongs to one engine."""

from trt_rt.engine.engine import Engine

__all__ = ["Engine"]
