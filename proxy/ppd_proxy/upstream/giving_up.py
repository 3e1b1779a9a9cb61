"""What becomes of the legs at an engine that was found dead: they fail at once, instead of at their deadlines.

Decides nothing about engines: the fleet says which of them count as dead, and by which sign.
"""

from __future__ import annotations

import math

from ppd_core.fleet.engine import Engine
from ppd_core.fleet.fleet import Fleet
from ppd_proxy.upstream.leg_request import parse_origin
from ppd_proxy.upstream.pool import Pool
from ppd_wire.errors import EngineFailure, Failure

SILENT_S = 10.0
"""A stream in the middle of its answer is broken off at an engine that refuses connections if it was silent for so
long: an engine that is shutting down in good order refuses them too, and goes on streaming."""


def give_up(fleet: Fleet, pool: Pool, engine: Engine, now: float) -> None:
    """Break off the legs that wait at `engine`, if it counts as dead. Those whose answer has not begun are for the
    caller to send elsewhere. Streams in the middle of their answers cannot be sent elsewhere: at an engine that is only
    silent, and may wake up, they have their idle timeout."""
    dead_by = fleet.found_dead(engine.id)
    if dead_by is None:
        return
    failure = EngineFailure(
        f"{engine.id} answers neither probes nor requests any more (found dead by {dead_by})",
        reason=Failure.ENGINE_ERROR,
    )
    silent_since = now - SILENT_S if dead_by == "refusals" else -math.inf
    pool.give_up(parse_origin(engine.url), failure, silent_since=silent_since)
