"""What two readings of an engine's counters say: what was gained, and whether it restarted."""

from __future__ import annotations

from ppd_wire.metrics.scraped import COUNTER_FIELDS, NO_CONNECTOR, UNKNOWN, ByLabels, ConnectorFigures, EngineFigures
from ppd_wire.metrics.spec_counters import SpecCounters


def delta(previous: EngineFigures, current: EngineFigures) -> EngineFigures:
    """What the counters gained between two readings; gauges are None.

    None where either reading does not say, so the first reading of an engine is only a starting point. Labelled series
    count from zero where the earlier reading did not have them. After a restart (another process start, or any counter
    that went down) all counters began again at zero, so all they show is gain.
    """
    if previous == UNKNOWN:
        return UNKNOWN
    was_restarted = is_restarted(previous, current)
    gained: dict[str, float] = {}
    for name in COUNTER_FIELDS:
        before, after = getattr(previous, name), getattr(current, name)
        if before is not None and after is not None:
            gained[name] = after if was_restarted else after - before
    pairs = zip(NO_CONNECTOR if was_restarted else previous.connector, current.connector, strict=True)
    connector = ConnectorFigures(*(_gain(before, after) for before, after in pairs))
    return EngineFigures(**gained, connector=connector, spec=_spec_gain(previous, current, was_restarted))


def _gain(before: ByLabels, after: ByLabels) -> ByLabels:
    return {labels: value - before.get(labels, 0) for labels, value in after.items() if value > before.get(labels, 0)}


def _spec_gain(previous: EngineFigures, current: EngineFigures, was_restarted: bool) -> SpecCounters | None:
    if previous.spec is None or current.spec is None:
        return None
    return current.spec if was_restarted else current.spec.since(previous.spec)


def is_restarted(previous: EngineFigures, current: EngineFigures) -> bool:
    """True if the engine's counters began again at zero between two readings."""
    starts = (previous.process_start_s, current.process_start_s)
    if None not in starts and starts[0] != starts[1]:
        return True
    pairs = ((getattr(previous, name), getattr(current, name)) for name in COUNTER_FIELDS)
    if any(before is not None and after is not None and after < before for before, after in pairs):
        return True
    if previous.spec is not None and current.spec is not None and current.spec.is_behind(previous.spec):
        return True
    labelled = zip(previous.connector, current.connector, strict=True)
    return any(after.get(labels, 0) < value for before, after in labelled for labels, value in before.items())
