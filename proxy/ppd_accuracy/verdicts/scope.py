"""One scope's samples: the window that shares are taken of, and the detector that they feed."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ppd_accuracy.verdicts.evidence import Evidence
from ppd_accuracy.verdicts.noise import Category, NoiseKey, Outcome

ROUTES: Mapping[str, float] = MappingProxyType({"route:pd": 0.5, "route:direct": 0.4})
"""Whose evidence is kept apart in the scopes of both, with its weight."""
_REJECTED: tuple[Category, ...] = ("rare", "far")
_WINDOW = 1000
REMEMBERED = 5000
"""Identities of samples: more than a detector's memory."""


class Judged(NamedTuple):
    """One sample of a scope's window."""

    key: NoiseKey
    category: Category
    outcome: Outcome
    prompt_tokens: int
    is_same_text: bool
    entropy_change: float | None = None
    """Nats per token, candidate minus baseline; None where the likeliest tokens were not asked for."""


class Scope:
    """`beyond`, `rejected` (rare and far) and `keys` count what is in the window; `accusing` is the window that turned
    the scope red, `accused` the route whose samples did; the other route's say nothing then of whether it is over."""

    def __init__(self, name: str) -> None:
        self.detector = Evidence({} if name in ROUTES else ROUTES)
        self.is_red = False
        self.accusing: tuple[Judged, ...] = ()
        self.accused: str | None = None
        self.restart(is_red=False)

    def restart(self, *, is_red: bool) -> None:
        self.detector.restart()
        self.is_red = is_red
        self.window: deque[Judged] = deque()
        self.keys: Counter[NoiseKey] = Counter()
        self.beyond = self.rejected = 0
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def is_known(self, identity: bytes) -> bool:
        """Whether a sample of that identity came before, since the last restart; it has now."""
        is_known = identity in self._known
        self._known[identity] = None
        self._known.move_to_end(identity)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return is_known

    def append(self, judged: Judged) -> None:
        if len(self.window) >= _WINDOW:
            oldest = self.window.popleft()
            self.keys[oldest.key] -= 1
            self.beyond -= oldest.category != "within"
            self.rejected -= oldest.category in _REJECTED
        self.window.append(judged)
        self.keys[judged.key] += 1
        self.beyond += judged.category != "within"
        self.rejected += judged.category in _REJECTED

    @property
    def worst_key(self) -> NoiseKey | None:
        """Most of what is beyond is of it."""
        keys = Counter(judged.key for judged in self.window if judged.category != "within")
        return keys.most_common(1)[0][0] if keys else None
