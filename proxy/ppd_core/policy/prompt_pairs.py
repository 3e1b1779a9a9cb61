"""Which pairs render two prompts: a rule of its own beside the guard's, on every request and without a baseline.

Pure. It knows no answers, only whether both legs of a request counted the same prompt tokens
(`ppd_wire.answers.prompt_counts.PromptCheck`), and never enters the sampled evidence, whose rate it would bias.

Rules:
- A decode engine that took KV of another prompt keeps it under the hashes of its own, where later requests would find
  it. So every difference gives it a new cache salt. Salts are never reused and never taken back.
- LIMIT differences in a pair's last WINDOW compared requests distrust it.
- It is trusted again when one of its engines starts a new incarnation, or when a person says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ppd_core.fleet.engine import Engine
from ppd_core.policy.distrust import Distrust, Pair, new_salt

WINDOW = 100
LIMIT = 3


class _Compared:
    """One pair in one incarnation of both engines."""

    __slots__ = ("differences", "incarnations", "is_distrusted", "last")

    def __init__(self, incarnations: tuple[int, int]) -> None:
        self.incarnations = incarnations
        self.last: deque[bool] = deque(maxlen=WINDOW)
        self.differences = 0
        self.is_distrusted = False

    def add(self, *, differs: bool) -> None:
        if len(self.last) == WINDOW:
            self.differences -= self.last[0]
        self.last.append(differs)
        self.differences += differs


class PromptPairs:
    """All pairs that were compared. `epoch_base` makes the salts of this process its own."""

    def __init__(self, epoch_base: str) -> None:
        self._epoch_base = epoch_base
        self._epoch = 0
        self._compared: dict[Pair, _Compared] = {}
        self._salts: dict[str, str] = {}

    @property
    def distrust(self) -> Distrust:
        """What the planner must know; changes with a difference, and with what `refresh` and `trust` give back."""
        return Distrust(pairs=frozenset(self.distrusted), salts=dict(self._salts))

    @property
    def distrusted(self) -> tuple[Pair, ...]:
        return tuple(sorted(pair for pair, compared in self._compared.items() if compared.is_distrusted))

    def differences(self, pair: Pair) -> tuple[int, int]:
        """How many of how many compared requests differed, lately."""
        compared = self._compared.get(pair)
        return (compared.differences, len(compared.last)) if compared is not None else (0, 0)

    def agreed(self, prefill: Engine, decode: Engine) -> None:
        self._of(prefill, decode).add(differs=False)

    def differed(self, prefill: Engine, decode: Engine) -> bool:
        """Whether the pair is distrusted from now on, and was not before."""
        compared = self._of(prefill, decode)
        compared.add(differs=True)
        self._epoch += 1
        self._salts[decode.id] = new_salt(decode.id, f"{self._epoch_base}.{self._epoch}")
        if compared.is_distrusted or compared.differences < LIMIT:
            return False
        compared.is_distrusted = True
        return True

    def refresh(self, engines: Iterable[Engine]) -> tuple[Pair, ...]:
        """Forget the pairs of engines that left or live anew; gives those that are trusted again."""
        if not self._compared:
            return ()
        lives = {engine.id: engine.incarnation for engine in engines}
        gone = [
            pair
            for pair, compared in self._compared.items()
            if (lives.get(pair[0]), lives.get(pair[1])) != compared.incarnations
        ]
        return self._forget(gone)

    def trust(self, pair: Pair | None) -> tuple[Pair, ...]:
        """A person trusts a pair again (None: all); gives those that were not trusted."""
        return self._forget([each for each in self.distrusted if pair is None or each == pair])

    def _forget(self, pairs: Iterable[Pair]) -> tuple[Pair, ...]:
        return tuple(pair for pair in pairs if self._compared.pop(pair).is_distrusted)

    def _of(self, prefill: Engine, decode: Engine) -> _Compared:
        pair, incarnations = (prefill.id, decode.id), (prefill.incarnation, decode.incarnation)
        compared = self._compared.get(pair)
        if compared is None or compared.incarnations != incarnations:
            compared = self._compared[pair] = _Compared(incarnations)
        return compared
