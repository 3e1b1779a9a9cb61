"""Holds the prompt counts of one request's two legs against each other, and tells the rest of the proxy.

The rule about pairs is `ppd_core/policy/prompt_pairs.py`; what a count is, `ppd_wire/answers/prompt_counts.py`. Here
a difference becomes a failed leg, a new salt for the decode engine, and two engines that the next try avoids.
"""

from __future__ import annotations

from ppd_core.policy.plan import Plan
from ppd_proxy.collaborators import Collaborators
from ppd_proxy.core.signals import LegFailed
from ppd_wire.answers.answer import EngineAnswer, counted_usage
from ppd_wire.answers.prompt_counts import PromptCheck
from ppd_wire.errors import EngineFailure, Failure


class PromptWatch:
    __slots__ = ("_check", "_prefill_tokens", "_shared", "doubted")

    def __init__(self, shared: Collaborators) -> None:
        self._shared = shared
        self._prefill_tokens: int | None = None
        self._check: PromptCheck | None = None
        self.doubted: frozenset[str] = frozenset()
        """Engines of pairs whose legs differed for this request."""

    def prefilled(self, prompt_tokens: int | None) -> None:
        self._prefill_tokens = prompt_tokens

    def begin(self) -> PromptCheck:
        """The check of a decode leg that is about to be opened behind a prefill leg."""
        self._check = PromptCheck(self._prefill_tokens)
        return self._check

    @property
    def is_open(self) -> bool:
        """There is a count to compare, and it was not compared yet."""
        return self._check is not None and self._check.result is None

    def compare(self, answer: EngineAnswer | None) -> LegFailed | None:
        """What a whole answer's count means: a failed leg where the prompts differ."""
        if self._check is None:
            return None
        if self._check.compare(counted_usage(answer)):
            return None
        return LegFailed(error=EngineFailure(str(self._check), reason=Failure.ENGINE_ERROR))

    def complete(self, plan: Plan, answer: EngineAnswer | None) -> None:
        """The decode leg's answer is whole, and the client's."""
        if self.is_open:
            self.compare(answer)  # a stream that told no count before its end
        check, self._check = self._check, None
        if check is None or check.result is None or plan.prefill is None:
            return
        self._shared.observer.prompts_compared(check.result)
        if check.result == "same":
            self._shared.prompts.agreed(plan.prefill, plan.decode)

    def failed(self, plan: Plan) -> None:
        """The decode leg failed, maybe for its count."""
        check, self._check = self._check, None
        if check is None or check.result != "differs" or plan.prefill is None:
            return
        shared, pair = self._shared, (plan.prefill.id, plan.decode.id)
        self.doubted |= frozenset(pair)
        is_distrusted = shared.prompts.differed(plan.prefill, plan.decode)
        shared.join_distrust()
        shared.observer.prompts_compared("differs")
        shared.observer.prompts_differ(pair, str(check), is_distrusted=is_distrusted)
