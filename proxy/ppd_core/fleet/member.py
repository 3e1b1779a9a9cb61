"""The record behind one engine of the fleet: its signs of life, and what somebody stated about it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ppd_core.fleet.engine import Engine, EngineState, HandoffName
from ppd_core.fleet.signs import FAILED_RUN, Signal


@dataclass(slots=True, kw_only=True)
class Member:
    """The record behind one `Engine` value."""

    engine: Engine
    beats: Signal
    probes: Signal
    beat_at: float
    silence_s: float | None
    """How long it may be silent; None: no beats are expected of it."""
    stated_handoff: HandoffName | None = None
    stated_zmq_address: str | None = None
    stated_ppd: bool | None = None
    is_drained: bool = False
    is_kv_lost: bool = False
    failed_answers: int = 0
    """In a row, the last ones."""
    tried_at: float = 0.0
    """When it last got a request to see whether it answers again."""

    @property
    def state(self) -> EngineState:
        if not (self.beats.is_good and self.probes.is_good):
            return "down"
        if self.is_drained:
            return "draining"
        return "unhealthy" if self.failed_answers >= FAILED_RUN else "up"

    def known(self, *, trust_announced: bool) -> Engine:
        """What is known when the engine is being named: without what only an announcement said, unless that counts."""
        if self.engine.source != "announced" or trust_announced:
            return self.engine
        return replace(self.engine, zmq_address=None, is_ppd=False)

    def completed(self, zmq_address: str, *, is_ppd: bool) -> Engine:
        """With what the engine says of itself where nobody stated it."""
        return replace(
            self.engine,
            zmq_address=self.stated_zmq_address or zmq_address,
            is_ppd=is_ppd if self.stated_ppd is None else self.stated_ppd,
        )
