"""How often the engines' drafts are accepted: lately, and as counters since each engine's start, whose own `rate()`
serves any window."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

from ppd_accuracy.verdicts.speculation import figures
from ppd_core.fleet.readings import Readings
from ppd_proxy.telemetry import instruments
from ppd_proxy.telemetry.cells import counter_family, gauge_family

_ALL_POSITIONS = "all"


def draft_families(readings: Readings) -> Iterable[Metric]:
    length, rate = gauge_family(instruments.SPEC_LENGTH), gauge_family(instruments.SPEC_RATE)
    drafts, tokens = counter_family(instruments.SPEC_DRAFTS), counter_family(instruments.SPEC_DRAFT_TOKENS)
    accepted = counter_family(instruments.SPEC_ACCEPTED)
    for engine_id, window in readings.drafts().items():
        latest, gained = window.latest, window.gain()
        if latest is not None:
            drafts.add_metric((engine_id,), latest.drafts)
            tokens.add_metric((engine_id,), latest.draft_tokens)
            for position, count in enumerate(latest.per_position):
                accepted.add_metric((engine_id, str(position)), count)
        acceptance = figures(gained) if gained is not None else None
        if acceptance is not None:
            length.add_metric((engine_id,), acceptance.acceptance_length)
            rate.add_metric((engine_id, _ALL_POSITIONS), acceptance.acceptance_rate)
            for position, share in enumerate(acceptance.per_position):
                rate.add_metric((engine_id, str(position)), share)
    return drafts, tokens, accepted, length, rate
