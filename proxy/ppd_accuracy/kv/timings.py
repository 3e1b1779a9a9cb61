"""The four parts of CacheBlend's time to first token, as its troubleshooting guide measures them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """The parts of the time to first token, in seconds; `full_prefill_s` is what it takes without reuse."""

    load_s: float
    selection_s: float
    recompute_s: float
    generation_s: float
    full_prefill_s: float | None = None

    @property
    def total_s(self) -> float:
        return self.load_s + self.selection_s + self.recompute_s + self.generation_s

    @property
    def parts(self) -> tuple[tuple[str, float], ...]:
        return (
            ("KV load", self.load_s),
            ("HKVD selection", self.selection_s),
            ("partial recompute", self.recompute_s),
            ("token generation", self.generation_s),
        )


_PARTS = (
    ("load_s", ("kv_load", "kv_load_s", "load", "load_s")),
    ("selection_s", ("selection", "selection_s", "hkvd_selection", "hkvd_selection_s")),
    ("recompute_s", ("partial_recompute", "partial_recompute_s", "recompute", "recompute_s")),
    ("generation_s", ("generation", "generation_s", "token_generation", "token_generation_s")),
)
_FULL = ("full_prefill", "full_prefill_s")


def read_timings(given: object) -> Timings:
    """From `t1` to `t5` (moments), or four durations; both in seconds. ValueError names what is wrong."""
    if not isinstance(given, Mapping):
        raise ValueError(
            f"it holds a {type(given).__name__}; an object with t1 to t5, or with four durations, is right"
        )
    full = next((_seconds(given, name) for name in _FULL if name in given), None)
    moments = ("t1", "t2", "t3", "t4", "t5")
    if any(name in given for name in moments):
        missing = [name for name in moments if name not in given]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing; all of t1 to t5 are needed")
        times = [_number(given, name) for name in moments]
        if sorted(times) != times:
            raise ValueError(f"t1 to t5 are {times}; each must be at or after the one before")
        load, selection, recompute, generation = np.diff(times).tolist()
    else:
        found = {}
        for field, names in _PARTS:
            name = next((name for name in names if name in given), None)
            if name is None:
                raise ValueError(
                    f"{names[0]} is missing; kv_load, selection, partial_recompute and generation are needed"
                )
            found[field] = _seconds(given, name)
        load, selection, recompute, generation = found.values()
    return Timings(
        load_s=load, selection_s=selection, recompute_s=recompute, generation_s=generation, full_prefill_s=full
    )


def _number(given: Mapping[object, object], name: str) -> float:
    value = given[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{name} is {value!r}; it must be a number of seconds")
    return float(value)


def _seconds(given: Mapping[object, object], name: str) -> float:
    value = _number(given, name)
    if value < 0:
        raise ValueError(f"{name} is {value:g}; a duration is not negative")
    return value
