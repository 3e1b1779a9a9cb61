"""What describes one metric; the metrics themselves are in `instruments` and the modules it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]
Group = Literal["requests", "kv", "engines", "scraped", "shadow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One metric. `name` is as exposed (counters end in `_total`; histograms and summaries add `_sum`, `_count`)."""

    name: str
    kind: Kind
    group: Group
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    label_values: Mapping[str, str] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()
