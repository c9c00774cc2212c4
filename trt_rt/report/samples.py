"""The times of one kind of call: a histogram of single calls, and the medians of rounds."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy
from hdrh.histogram import HdrHistogram

__all__ = ["Samples", "Times"]

# From a nanosecond to 100 seconds, with three significant digits: a histogram of 250 kB.
_LOWEST, _HIGHEST, _DIGITS = 1, 100_000_000_000, 3
_CONFIDENCE = 0.95
_RESAMPLES = 2000


class Samples:
    """Collects the times of single calls, round by round.

    Parameters
    ----------
    clock_cost : int
        Nanoseconds that reading the clock adds to each time; they are taken off.
    """

    def __init__(self, clock_cost: int = 0) -> None:
        self._clock_cost = clock_cost
        self._histogram = HdrHistogram(_LOWEST, _HIGHEST, _DIGITS)
        self._medians: list[float] = []

    def add(self, nanoseconds: array[int]) -> None:
        """Add one round.

        Parameters
        ----------
        nanoseconds : array of int
            The time of each call.
        """
        times = numpy.maximum(numpy.frombuffer(nanoseconds, dtype=numpy.int64) - self._clock_cost, _LOWEST)
        # The histogram counts in Python: equal times are added together.
        for value, count in zip(*numpy.unique(times, return_counts=True), strict=True):
            self._histogram.record_value(min(int(value), _HIGHEST), int(count))
        self._medians.append(float(numpy.median(times)) / 1000)

    @property
    def rounds(self) -> int:
        """The number of rounds."""
        return len(self._medians)

    def times(self) -> Times:
        """Return what was collected. There is at least one round."""
        low, high = _interval_of_median(self._medians)
        return Times(
            median=self._percentile(50),
            low=low,
            high=high,
            p90=self._percentile(90),
            p99=self._percentile(99),
            p99_9=self._percentile(99.9),
            least=self._histogram.get_min_value() / 1000,
            most=self._histogram.get_max_value() / 1000,
            calls=self._histogram.get_total_count(),
            round_medians=tuple(round(median, 3) for median in self._medians),
            histogram=self._histogram.encode().decode("ascii"),
        )

    def _percentile(self, percentile: float) -> float:
        return float(self._histogram.get_value_at_percentile(percentile)) / 1000


@dataclass(frozen=True)
class Times:
    """How long calls of one kind took.

    Attributes
    ----------
    median, p90, p99, p99_9, least, most : float
        Of single calls, in microseconds, with three significant digits.
    low, high : float
        The 95 % confidence interval of the median over rounds, in microseconds (bootstrap, percentile
        method).
    calls : int
        The number of calls.
    round_medians : tuple of float
        The median of each round, in the order of time, in microseconds.
    histogram : str
        All calls as an HDR histogram of nanoseconds in its own base64 encoding (HdrHistogram V2).
    """

    median: float
    low: float
    high: float
    p90: float
    p99: float
    p99_9: float
    least: float
    most: float
    calls: int
    round_medians: tuple[float, ...] = field(repr=False)
    histogram: str = field(repr=False)

    @cached_property
    def curve(self) -> tuple[list[float], list[float]]:
        """Percentiles from 0 to 100 and the microseconds that so many calls needed at most, for a plot."""
        histogram: Any = HdrHistogram.decode(self.histogram)
        # Equal steps in the number of nines: the tail is what people look at.
        shares = 1 - numpy.logspace(0, -4, 161)
        percentiles = [float(share) * 100 for share in shares]
        return percentiles, [histogram.get_value_at_percentile(value) / 1000 for value in percentiles]


def _interval_of_median(medians: list[float]) -> tuple[float, float]:
    if len(set(medians)) < 2:
        return medians[0], medians[0]
    from scipy.stats import bootstrap  # takes 0.3 s to import

    found = bootstrap(
        (medians,),
        numpy.median,
        n_resamples=_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",  # the others fail where most medians are equal
        rng=numpy.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
