"""How hypothesis runs: the same examples every time, or new ones with ``TRT_RT_HYPOTHESIS=search``."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["examples"]

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("search", settings.get_profile("repeatable"), derandomize=False)

_PROFILE = os.environ.get("TRT_RT_HYPOTHESIS", "repeatable")
_EFFORT = {"repeatable": 1, "search": 20}

# Tests without `examples` have no deadline either: Hypothesis's own is 200 ms for each example.
settings.load_profile(_PROFILE)


def examples(count: int, **options: int) -> settings:
    """Settings for `count` examples; for twenty times as many when searching."""
    return settings(settings.get_profile(_PROFILE), max_examples=count * _EFFORT[_PROFILE], **options)
