"""Counters and histograms without locks, read by prometheus-client as custom collectors.

The library's own take a lock per increment and walk the buckets one by one: an observation takes three times as long,
and there are three per request. In return everything here, reading included, belongs to the event loop's thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ppd_proxy.telemetry.instrument import Instrument

Labels = tuple[str, ...]


class Counters(Collector):
    """One counter; a series exists from its first `add` on."""

    __slots__ = ("_instrument", "_values")

    def __init__(self, registry: CollectorRegistry, instrument: Instrument) -> None:
        self._instrument = instrument
        self._values: dict[Labels, float] = {} if instrument.labels else {(): 0}
        registry.register(self)

    def add(self, labels: Labels, amount: float = 1) -> None:
        """`labels` in the instrument's order; `amount` is not negative."""
        self._values[labels] = self._values.get(labels, 0) + amount

    def collect(self) -> Iterator[Metric]:
        yield counter_family(self._instrument, self._values.items())


class Live(Collector):
    """Families that are made when someone asks for the metrics."""

    def __init__(self, registry: CollectorRegistry, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        return self._families()


class Histograms(Collector):
    """One histogram; a series exists from its first `observe` on."""

    __slots__ = ("_bounds", "_instrument", "_names", "_series")

    def __init__(self, registry: CollectorRegistry, instrument: Instrument) -> None:
        self._instrument = instrument
        self._bounds = instrument.buckets
        self._names = (*(str(float(bound)) for bound in self._bounds), "+Inf")
        self._series: dict[Labels, _Series] = {}
        registry.register(self)

    def observe(self, labels: Labels, value: float) -> None:
        """`labels` in the instrument's order."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series(len(self._bounds) + 1)
        series.counts[bisect_left(self._bounds, value)] += 1
        series.total += value

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._instrument.name, self._instrument.help, labels=self._instrument.labels)
        for labels, series in self._series.items():
            family.add_metric(labels, list(zip(self._names, accumulate(series.counts), strict=True)), series.total)
        yield family


class _Series:
    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


def counter_family(instrument: Instrument, values: Iterable[tuple[Labels, float]] = ()) -> CounterMetricFamily:
    """A family with these values, each with its labels; more can be added while collecting."""
    family = CounterMetricFamily(instrument.name, instrument.help, labels=instrument.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def gauge_family(instrument: Instrument, values: Iterable[tuple[Labels, float]] = ()) -> GaugeMetricFamily:
    """As `counter_family`."""
    family = GaugeMetricFamily(instrument.name, instrument.help, labels=instrument.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def summary_family(instrument: Instrument) -> SummaryMetricFamily:
    """An empty family to fill while collecting."""
    return SummaryMetricFamily(instrument.name, instrument.help, labels=instrument.labels)
