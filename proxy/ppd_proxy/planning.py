"""The plan for a request as things stand now, and what its legs tell about their engines.

The one place where fleet, loads and the retry budget are asked and told on behalf of requests. Decides nothing:
`ppd_core/policy/decide.py` does, and the fleet says what an engine's failures make of it.
"""

from __future__ import annotations

from ppd_core.fleet.engine import Engine
from ppd_core.policy.decide import decide
from ppd_core.policy.plan import Demand, Plan
from ppd_core.policy.situation import Situation
from ppd_proxy.collaborators import Collaborators
from ppd_proxy.core.signals import LegFailed, MakePlan
from ppd_proxy.upstream.giving_up import give_up
from ppd_wire.errors import NoRoute

_NONE: frozenset[str] = frozenset()


def make_plan(shared: Collaborators, demand: Demand, command: MakePlan) -> Plan:
    """Raises NoRoute where no engine can take the request, or take it again."""
    now, view = shared.loop.time(), shared.fleet.view
    if command.cause is None:
        shared.retry_budget.note_request(now)
    elif not command.is_free and not shared.retry_budget.take(now):
        shared.observer.retried(is_allowed=False)
        raise NoRoute("too many retries in the last 10 s, over all requests", reason=command.cause)
    trials = shared.fleet.due_trials(now) if view.unhealthy else _NONE
    situation = Situation(
        mode=shared.mode,
        fleet=view,
        loads=shared.load.weighed(now),
        trust_direct=shared.trust_direct,
        failed=command.failed,
        unreachable=command.unreachable,
        shunned=view.unhealthy - trials if view.unhealthy else _NONE,
        trials=trials,
        cause=command.cause,
        keep=command.keep,
        tried_pairs=command.tried_pairs,
        may_repeat=command.may_repeat,
        distrust=shared.distrust,
    )
    plan = decide(demand, situation)
    if view.unhealthy:
        for engine in (plan.decode, plan.prefill):
            if engine is not None and engine.id in trials:
                shared.fleet.tried(engine.id, now)
    if command.cause is not None:
        shared.observer.retried(is_allowed=True)
    return plan


def note_answer(shared: Collaborators, engine: Engine, *, failure: str | None, tokens: int) -> None:
    """How an answer of an engine ended; `failure` says in a few words what was wrong, None that nothing was. `tokens`
    is the size of the request: for a while, what failed counts as load."""
    now = shared.loop.time()
    if failure is not None:
        shared.load.note_failed(engine.id, tokens, now)
    changes = shared.fleet.answered(engine.id, failure, now)
    if changes:
        shared.fleet_changed(changes)


def note_failure(shared: Collaborators, engine: Engine, event: LegFailed, *, tokens: int) -> None:
    """A leg without a complete answer; what the proxy itself caused says nothing of the engine."""
    failure = event.error
    if failure.source != "engine" or event.is_our_doing:
        return
    if event.was_sent:
        note_answer(shared, engine, failure=failure.message, tokens=tokens)
        return
    now = shared.loop.time()
    note = shared.fleet.late if failure.is_late else shared.fleet.leg_failed
    shared.fleet_changed(note(engine.id, now))
    give_up(shared.fleet, shared.pool, engine, now)
