"""Which engine of a role: least loaded by in-flight tokens, a conversation's home first while its load is bounded.

Pure: the same engines, loads and request give the same choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import xxhash

from ppd_core.conversation.history import Home
from ppd_core.fleet.engine import Engine, Loads

LOAD_FACTOR = 1.25
"""A home may carry this much more than the least loaded engine before a conversation leaves it."""
SLACK_TOKENS = 8192
"""... plus this much, or what it holds of the conversation if that is more: leaving means prefilling that again, and
moving long contexts costs more than it gains (verl#6533: 18 to 20 % slower)."""


def least_loaded(
    engines: Iterable[Engine],
    loads: Loads,
    spread_key: bytes,
    avoid: frozenset[str] = frozenset(),
    *,
    shun: frozenset[str] = frozenset(),
    first: frozenset[str] = frozenset(),
) -> Engine | None:
    """The engine with the fewest in-flight tokens: one of `avoid` only if there is no other, one of `shun` only if the
    others are to be avoided; one of `first` before the rest.

    Ties are broken by rendezvous hashing, so that idle engines share new conversations and equal starts of
    conversations meet the same prefix cache.
    """
    return min(
        engines,
        key=lambda engine: (
            engine.id in avoid,
            engine.id in shun,
            engine.id not in first,
            loads.get(engine.id, 0),
            _weight(spread_key, engine.id),
        ),
        default=None,
    )


def _weight(spread_key: bytes, engine_id: str) -> int:
    return xxhash.xxh3_64_intdigest(spread_key + engine_id.encode())


def find_home(home: Home | None, engines: Iterable[Engine]) -> Engine | None:
    """The live engine that still holds the conversation: the same id in the same incarnation."""
    if home is None:
        return None
    for engine in engines:
        if engine.id == home.engine_id and engine.incarnation == home.incarnation:
            return engine
    return None


def is_overloaded(engine: Engine, held_tokens: int, engines: Sequence[Engine], loads: Loads) -> bool:
    """The home carries so much more than the least loaded engine that leaving it is worth a prefill."""
    others = [loads.get(other.id, 0) for other in engines if other.id != engine.id]
    if not others:
        return False
    return loads.get(engine.id, 0) > LOAD_FACTOR * min(others) + max(held_tokens, SLACK_TOKENS)
