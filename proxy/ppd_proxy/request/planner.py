"""The next attempt for a request as things stand now, and what its legs tell about their engines. Pure.

The one place where fleet, loads and the retry budget are asked and told on behalf of requests. Decides nothing:
`ppd_core/policy/decide.py` does, and the fleet says what an engine's failures make of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ppd_core.conversation.history import History, Home
from ppd_core.fleet.engine import Engine
from ppd_core.fleet.fleet import Change, Fleet
from ppd_core.fleet.load import Load, Reservation
from ppd_core.handoff.registry import HANDOFFS
from ppd_core.policy.decide import decide
from ppd_core.policy.placement import find_home
from ppd_core.policy.plan import DecisionReason, Demand, Mode, Plan
from ppd_core.policy.retry_budget import RetryBudget
from ppd_core.policy.situation import Situation
from ppd_proxy.control import Control
from ppd_proxy.request.attempt import Attempt
from ppd_proxy.request.request import Request
from ppd_proxy.request.signals import MakePlan
from ppd_proxy.upstream.events import LegFailed
from ppd_wire.errors import NoRoute

_NONE: frozenset[str] = frozenset()


class Retrying(Protocol):
    def __call__(self, *, is_allowed: bool) -> None:
        """A failed request is tried again, or is not because of too many others."""


class Planner:
    """`clock` gives the seconds that fleet and loads know. `on_changes` is told what the fleet gave back, `give_up`
    that a leg could not reach an engine: what else waits there may have to be broken off."""

    def __init__(
        self,
        fleet: Fleet,
        load: Load,
        control: Control,
        clock: Callable[[], float],
        *,
        on_retry: Retrying,
        on_changes: Callable[[tuple[Change, ...]], None],
        give_up: Callable[[Engine, float], None],
    ) -> None:
        self.budget = RetryBudget()
        self._fleet = fleet
        self._load = load
        self._control = control
        self._clock = clock
        self._on_retry = on_retry
        self._on_changes = on_changes
        self._give_up = give_up

    @property
    def mode(self) -> Mode:
        return self._control.mode

    def attempt(self, request: Request, key: str, command: MakePlan) -> Attempt:
        """Raises NoRoute where no engine can take the request, or take it again. `key`: see `Attempt`."""
        plan = self.plan(request.demand, command)
        is_retry, is_plain = command.cause is not None, command.cause is DecisionReason.DECODE_FAILED
        salt, handoff, tokens = self._control.distrust.salt(plan), HANDOFFS[plan.handoff], request.demand.prompt_tokens
        home = _found_home(request.demand.history, plan, salt)
        engine_id = key
        reservations: tuple[Reservation, ...] = (self._load.reserve(plan.decode.id, tokens),)
        if plan.prefill is not None:
            reservations += (self._load.reserve(plan.prefill.id, tokens),)
            held_tokens = 0 if is_retry else _held_tokens(home)  # what failed once gets everything anew
            engine_id = handoff.request_id(plan.prefill, plan.decode, key, held_tokens)
        return Attempt(
            plan=plan,
            handoff=handoff,
            key=key,
            engine_id=engine_id,
            salt=salt,
            home=home,
            # What we asked for may be why it failed.
            asked=request.plainly_asked if is_plain else request.asked,
            is_scored=request.is_scored and not is_plain,
            is_retry=is_retry,
            reservations=reservations,
        )

    def plan(self, demand: Demand, command: MakePlan) -> Plan:
        """Raises NoRoute."""
        now, view, control = self._clock(), self._fleet.view, self._control
        if command.cause is None:
            self.budget.note_request(now)
        elif not command.is_free and not self.budget.take(now):
            self._on_retry(is_allowed=False)
            raise NoRoute("too many retries in the last 10 s, over all requests", reason=command.cause)
        trials = self._fleet.due_trials(now) if view.unhealthy else _NONE
        situation = Situation(
            mode=control.mode,
            fleet=view,
            loads=self._load.weighed(now),
            trust_direct=control.trust_direct,
            failed=command.failed,
            unreachable=command.unreachable,
            shunned=view.unhealthy - trials if view.unhealthy else _NONE,
            trials=trials,
            cause=command.cause,
            keep=command.keep,
            tried_pairs=command.tried_pairs,
            may_repeat=command.may_repeat,
            distrust=control.distrust,
        )
        plan = decide(demand, situation)
        if view.unhealthy:
            for engine in (plan.decode, plan.prefill):
                if engine is not None and engine.id in trials:
                    self._fleet.tried(engine.id, now)
        if command.cause is not None:
            self._on_retry(is_allowed=True)
        return plan

    def note_answer(self, engine: Engine, *, failure: str | None, tokens: int) -> None:
        """How an answer of an engine ended; `failure` says in a few words what was wrong, None that nothing was.
        `tokens` is the size of the request: for a while, what failed counts as load."""
        if failure is None and engine.id not in self._fleet.failing:
            return
        now = self._clock()
        if failure is not None:
            self._load.note_failed(engine.id, tokens, now)
        changes = self._fleet.answered(engine.id, failure, now)
        if changes:
            self._on_changes(changes)

    def note_failure(self, engine: Engine, event: LegFailed, *, tokens: int) -> None:
        """A leg without a complete answer; what the proxy itself caused says nothing of the engine."""
        failure = event.error
        if failure.source != "engine" or event.is_our_doing:
            return
        if event.was_sent:
            self.note_answer(engine, failure=failure.message, tokens=tokens)
            return
        now = self._clock()
        note = self._fleet.late if failure.is_late else self._fleet.leg_failed
        self._on_changes(note(engine.id, now))
        self._give_up(engine, now)


def _found_home(history: History, plan: Plan, salt: str) -> Home | None:
    """The conversation's home if the plan's decode leg finds its KV there."""
    home = history.home
    is_found = home is not None and home.salt == salt and find_home(home, (plan.decode,)) is not None
    return home if is_found else None


def _held_tokens(home: Home | None) -> int:
    """How many of the prompt's first tokens the decode engine holds KV of, as far as the history tells.

    One less than the history counts: the KV of an answer's last token was never computed, because no token was sampled
    after it.
    """
    return max(0, home.held_tokens - 1) if home is not None else 0
