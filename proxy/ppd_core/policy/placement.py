"""Which engine of a role: the score by in-flight tokens, and a conversation's home while its load is bounded.

Pure: the same engines, loads and request give the same choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import xxhash

from ppd_core.conversation.history import Home
from ppd_core.fleet.engine import Engine, Loads

LOAD_FACTOR = 1.25
"""A home may carry this much more than the least loaded engine before a conversation leaves it."""
SLACK_TOKENS = 8192
"""... plus this much, or what it holds of the conversation if that is more: leaving means prefilling that again, and
moving long contexts costs more than it gains (verl#6533: 18 to 20 % slower)."""


Score = Callable[[Engine], tuple[int, ...]]
"""The engine with the lowest comes first."""


def load_score(
    loads: Loads,
    spread_key: bytes,
    avoid: frozenset[str] = frozenset(),
    *,
    shun: frozenset[str] = frozenset(),
    first: frozenset[str] = frozenset(),
) -> Score:
    """In-flight tokens, the least first: one of `avoid` only if there is no other, one of `shun` only if the others are
    to be avoided; one of `first` before the rest.

    Ties are broken by rendezvous hashing, so that idle engines share new conversations and equal starts of
    conversations meet the same prefix cache.
    """
    if not (avoid or shun or first):
        return lambda engine: (loads.get(engine.id, 0), _weight(spread_key, engine.id))
    return lambda engine: (
        engine.id in avoid,
        engine.id in shun,
        engine.id not in first,
        loads.get(engine.id, 0),
        _weight(spread_key, engine.id),
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
    load, slack = loads.get(engine.id, 0), max(held_tokens, SLACK_TOKENS)
    if load <= slack:
        return False
    others = [loads.get(other.id, 0) for other in engines if other.id != engine.id]
    return bool(others) and load > LOAD_FACTOR * min(others) + slack
