"""What operators and judges set while the proxy runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ppd_core.fleet.engine import Engine
from ppd_core.policy.distrust import Distrust, Pair, joined
from ppd_core.policy.plan import Mode
from ppd_core.policy.prompt_pairs import PromptPairs


class Control:
    """`mode` counts from the next request on, `distrust` from the next plan on: it is what two judges say, the guard
    (`guard`) and the rule about `prompts`. `is_stopping`: the proxy was asked to stop; load balancers are told so."""

    __slots__ = ("_guarded", "distrust", "is_stopping", "mode", "prompts", "trust_direct")

    def __init__(self, mode: Mode, prompts: PromptPairs, *, trust_direct: bool = False) -> None:
        self.mode: Mode = mode
        self.prompts = prompts
        self.trust_direct = trust_direct
        self.is_stopping = False
        self.distrust = Distrust()
        self._guarded = Distrust()

    def guard(self, distrust: Distrust) -> None:
        """The guard has changed its mind."""
        self._guarded = distrust
        self._join()

    def prompts_differed(self, prefill: Engine, decode: Engine) -> bool:
        """Whether the pair is distrusted from now on, and was not before."""
        is_distrusted = self.prompts.differed(prefill, decode)
        self._join()
        return is_distrusted

    def refresh_prompts(self, engines: Iterable[Engine]) -> tuple[Pair, ...]:
        """The pairs that are trusted again because one of their engines left or began anew."""
        return self._trusted(self.prompts.refresh(engines))

    def trust_prompts(self, pair: Pair | None) -> tuple[Pair, ...]:
        """A person trusts a pair again (None: all); gives those that were not trusted."""
        return self._trusted(self.prompts.trust(pair))

    def _trusted(self, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
        if pairs:
            self._join()
        return pairs

    def _join(self) -> None:
        self.distrust = joined(self._guarded, self.prompts.distrust)
