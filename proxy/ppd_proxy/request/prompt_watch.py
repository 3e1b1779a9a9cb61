"""Holds the prompt counts of one request's two legs against each other, and tells the rest of the proxy. Pure.

The rule about pairs is `ppd_core/policy/prompt_pairs.py`; what a count is, `ppd_wire/answers/prompt_counts.py`. Here
a difference becomes a failed leg, a new salt for the decode engine, and two engines that the next try avoids.
"""

from __future__ import annotations

from typing import Protocol

from ppd_core.policy.distrust import Pair
from ppd_core.policy.plan import Plan
from ppd_proxy.control import Control
from ppd_proxy.request.ongoing import Ongoing
from ppd_proxy.upstream.events import LegFailed
from ppd_wire.answers.answer import EngineAnswer, counted_usage
from ppd_wire.answers.prompt_counts import PromptCheck
from ppd_wire.errors import EngineFailure, Failure


class Watching(Protocol):
    """Who wants to know."""

    def prompts_compared(self, result: str) -> None: ...

    def prompts_differ(self, pair: Pair, why: str, *, is_distrusted: bool) -> None: ...


class PromptWatch:
    __slots__ = ("_control", "_observer")

    def __init__(self, control: Control, observer: Watching) -> None:
        self._control = control
        self._observer = observer

    def begin(self, ongoing: Ongoing) -> PromptCheck:
        """The check of a decode leg that is about to be opened behind a prefill leg."""
        check = ongoing.check = PromptCheck(ongoing.handed.prompt_tokens if ongoing.handed is not None else None)
        return check

    def compare(self, check: PromptCheck, answer: EngineAnswer | None) -> LegFailed | None:
        """What a whole answer's count means: a failed leg where the prompts differ."""
        if check.compare(counted_usage(answer)):
            return None
        return LegFailed(error=EngineFailure(str(check), reason=Failure.ENGINE_ERROR))

    def complete(self, ongoing: Ongoing, plan: Plan, answer: EngineAnswer | None) -> None:
        """The decode leg's answer is whole, and the client's."""
        check, ongoing.check = ongoing.check, None
        if check is None:
            return
        if check.result is None:
            self.compare(check, answer)  # a stream that told no count before its end
        if check.result is None or plan.prefill is None:
            return
        self._observer.prompts_compared(check.result)
        if check.result == "same":
            self._control.prompts.agreed(plan.prefill, plan.decode)

    def failed(self, ongoing: Ongoing, plan: Plan) -> None:
        """The decode leg failed, maybe for its count."""
        check, ongoing.check = ongoing.check, None
        if check is None or check.result != "differs" or plan.prefill is None:
            return
        pair = (plan.prefill.id, plan.decode.id)
        ongoing.doubted |= frozenset(pair)
        is_distrusted = self._control.prompts_differed(plan.prefill, plan.decode)
        self._observer.prompts_compared("differs")
        self._observer.prompts_differ(pair, str(check), is_distrusted=is_distrusted)
