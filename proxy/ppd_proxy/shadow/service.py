"""Accuracy shadowing as a whole, as the runtime starts it and operators ask it: shadow, verdicts, guard, journal.

The guard's word is passed on through `FleetReins`: what to distrust, and which homes to forget.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

import msgspec

from ppd_accuracy.verdicts.advice import advise
from ppd_accuracy.verdicts.noise import NoiseKey
from ppd_accuracy.verdicts.verdicts import ALL, Verdict, Verdicts
from ppd_core.conversation.history import Home
from ppd_core.policy import guard as guarding
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.guard import Action, Guard
from ppd_proxy.shadow.journal import Journal
from ppd_proxy.shadow.shadow import Shadow
from ppd_wire.errors import BadRequest
from ppd_wire.json.strict import plain

log = logging.getLogger(__name__)

SUMMARY_VERSION = 1
TICK_S = 1.0
_ROUTES = ("all", "route:pd", "route:direct")


class FleetReins(Protocol):
    """What the guard can do to the rest of the proxy."""

    def set_distrust(self, distrust: Distrust) -> None: ...

    def forget_homes(self, is_bad: Callable[[Home], bool]) -> int:
        """How many conversations lost their home."""
        ...

    def engines(self) -> Iterable[str]:
        """Ids of all engines that are known, up or not."""
        ...

    def pairs(self) -> Iterable[tuple[str, str]]:
        """Prefill and decode engines that could serve a handoff together now, trusted or not."""
        ...


class Accuracy:
    """`on_action` counts what the guard does; `kv_failures` counts transfers that connectors found damaged;
    `draft_acceptance` says what is wrong with speculative decoding, if anything."""

    def __init__(
        self,
        shadow: Shadow,
        guard: Guard,
        guard_mode: str,
        reins: FleetReins,
        *,
        baselines: tuple[str, ...],
        clock: Callable[[], float],
        on_action: Callable[[str], None],
        kv_failures: Callable[[], int],
        draft_acceptance: Callable[[], str | None],
    ) -> None:
        self.shadow = shadow
        self._guard = guard
        self._guard_mode = guard_mode
        self._reins = reins
        self._journal: Journal | None = None
        self._keeping: Callable[[], list[Coroutine[None, None, None]]] = list
        self._baselines = baselines
        self._clock = clock
        self._on_action = on_action
        self._kv_failures = kv_failures
        self._draft_acceptance = draft_acceptance
        self._logged: dict[str, Verdict] = {}
        self._damaged_before = kv_failures()
        shadow.on_judged = self.step
        shadow.red_in_use = self._red_in_use

    @property
    def verdicts(self) -> Verdicts:
        return self.shadow.verdicts

    def keep(self, journal: Journal, wall_clock: Callable[[], float]) -> None:
        """Have finished checks written there, and deleted when they are too old by `wall_clock` (seconds since 1970);
        before `work`."""
        self._journal = self.shadow.ledger = journal
        self._keeping = lambda: [journal.run(), journal.forget(wall_clock)]

    def work(self) -> list[Coroutine[None, None, None]]:
        """What is to run, each until cancelled: checking, watching, writing, forgetting."""
        return [*self.shadow.work(), self._watch(), *self._keeping()]

    async def close(self) -> None:
        if self._journal is not None:
            await self._journal.close()

    async def _watch(self) -> None:
        """The guard's waiting times pass without samples too."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.verdicts.raise_alarm(ALL, self._draft_acceptance())
                self._forget_lost_pairs()
                self.step()
            except Exception:
                log.exception("the accuracy check's upkeep failed; it goes on")

    def _forget_lost_pairs(self) -> None:
        known = set(self._reins.engines())
        for scope in self.verdicts.verdicts():
            pair = guarding.scope_pair(scope)
            if pair is not None and not known.issuperset(pair):
                self.verdicts.forget(scope)

    def _red_in_use(self) -> list[str]:
        """A pair that the guard took out of use left nothing behind: its decode engine has a new salt. A guard that
        does not act never takes one out: its turns would hide those of its neighbours for as long as it is red."""
        if self._guard_mode != "act":
            return []
        held = {action.scope for action in self._guard.actions_in_force}
        return [scope for scope in self.verdicts.red if scope not in held]

    def step(self) -> None:
        """Tell what changed, and let the guard act on it."""
        verdicts = self.verdicts.verdicts()
        for scope, verdict in verdicts.items():
            before = self._logged.get(scope, "unknown")
            if verdict != before:
                level = logging.WARNING if verdict in ("amber", "red") else logging.INFO
                log.log(level, "verdict %s scope=%s before=%s%s", verdict, scope, before, self._explained(scope))
        self._logged = verdicts
        actions = self._guard.update(guarding.JudgedScopes(verdicts), self._reins.pairs(), self._clock())
        self._carry_out(actions)

    def _carry_out(self, actions: Iterable[Action]) -> None:
        distrust = self._guard.distrust
        for action in actions:
            forgotten = self._reins.forget_homes(action.forgets) if action.kind == "distrust_pair" else 0
            self._on_action(action.kind)
            log.warning(
                "guard %s scope=%s forgotten=%d why=%s", action.kind, action.scope, forgotten, action.reason
            )
            if action.kind.startswith("trust_"):
                self.verdicts.reset(action.scope)
            if action.kind in ("distrust_pair", "trust_pair"):
                # What these scopes were judged by came from a pair that is out of use now, or comes back.
                for scope in _ROUTES:
                    self.verdicts.reset(scope)
        self._reins.set_distrust(distrust)

    def _explained(self, scope: str) -> str:
        report = self.verdicts.report(scope)
        advice = self.advice(scope)
        why = f" why={report.reason!r}" if report is not None else ""
        return why + (f" advice={advice!r}" if advice else "")

    def advice(self, scope: str) -> str | None:
        verdicts = self.verdicts.verdicts()
        if verdicts.get(scope) not in ("amber", "red"):
            return None
        return advise(self.verdicts.window(scope), verdicts, self._kv_failures() - self._damaged_before)

    # What operators ask

    def summary(self) -> dict[str, Any]:
        """`GET /accuracy`; its schema is docs/accuracy.schema.json."""
        shadow = self.shadow
        outcomes: dict[str, dict[str, int]] = {}
        for (route, outcome), count in sorted(shadow.outcomes.items()):
            outcomes.setdefault(route, {})[outcome] = count
        return {
            "version": SUMMARY_VERSION,
            "rate": shadow.budget.rate,
            "method": shadow.budget.method,
            "top_logprobs": shadow.budget.top_logprobs,
            "baselines": list(self._baselines),
            "waiting": shadow.waiting,
            "checking": shadow.checking,
            "parked": shadow.parked,
            "outcomes": outcomes,
            "dropped": dict(sorted(shadow.drops.items())),
            "cost": {
                method: {"checks": checks, "mean_ms": shadow.took_ms[method] / checks}
                for method, checks in sorted(shadow.checks.items())
            },
            "noise": [self._noise(key) for key in self.verdicts.noise.keys],
            "calibrating": dict(shadow.calibrating),
            "recalibrations": self.verdicts.recalibrations,
            "scopes": [
                {**msgspec.to_builtins(report), "excess": list(report.excess), "advice": self.advice(report.scope)}
                for report in self.verdicts.reports()
            ],
            "guard": {
                "mode": self._guard_mode,
                "in_force": [_action(action) for action in self._guard.actions_in_force],
            },
        }

    def _noise(self, key: NoiseKey) -> dict[str, Any]:
        noise = self.verdicts.noise
        reference = noise.reference(key)
        return {
            "model": key.model,
            "prompt_tokens_up_to": key.bucket_tokens,
            "sampling": key.sampling,
            "samples": noise.count(key),
            "missing": noise.missing(key),
            "thresholds": None if reference is None else {"samples": reference.samples, **reference.shown},
        }

    def noise(self) -> list[dict[str, Any]]:
        """`GET /accuracy/noise`: every healthy sample: tokens, mean difference, largest differences and margins."""
        noise = self.verdicts.noise
        return [
            {
                **self._noise(key),
                "figures": [[each.tokens, each.mean_delta, each.largest, each.margins] for each in noise.samples(key)],
            }
            for key in noise.keys
        ]

    def set_rate(self, text: str) -> float:
        try:
            rate = float(text)
        except ValueError:
            rate = -1.0
        if not 0 <= rate <= 1:
            raise BadRequest(f"rate: {text!r} is not a share from 0 to 1", param="rate")
        self.shadow.budget = msgspec.structs.replace(self.shadow.budget, rate=rate)
        return rate

    def calibrate(self, samples: int) -> dict[str, int]:
        ordered = self.shadow.calibrate(samples)
        if not ordered:
            raise BadRequest(
                "no sample to take prompts from yet: send requests through the proxy first", status=409, param="samples"
            )
        return ordered

    def reset(self, scope: str | None) -> list[str]:
        known = list(self.verdicts.verdicts())
        if scope is not None and scope not in known:
            raise BadRequest(f"scope: {scope!r} is not known; known scopes: {', '.join(known)}", param="scope")
        self.verdicts.reset(scope)
        if scope is None:
            self._damaged_before = self._kv_failures()
        self.step()
        return [scope] if scope is not None else known

    def is_distrusted(self, scope: str) -> bool:
        """The guard took it out of use."""
        return any(action.scope == scope for action in self._guard.actions_in_force)

    def trust(self, scope: str | None) -> list[dict[str, Any]]:
        """A person lifts what the guard did."""
        try:
            actions = self._guard.undo(scope, self._clock())
        except ValueError as error:
            raise BadRequest(str(error), param="scope") from None
        self._carry_out(actions)
        return [_action(action) for action in actions]

    async def samples(
        self, limit: int, *, outcome: str | None = None, route: str | None = None, before: int | None = None
    ) -> list[dict[str, Any]]:
        rows = await self._kept().latest(limit, outcome=outcome, route=route, before=before)
        return [plain(row) for row in rows]

    async def sample(self, sample_id: str) -> dict[str, Any]:
        row = await self._kept().get(sample_id)
        if row is None:
            raise BadRequest(f"sample id: {sample_id!r} is not in the journal", status=404, param="id")
        return {name: plain(value) for name, value in row.items()}

    def _kept(self) -> Journal:
        if self._journal is None:
            raise BadRequest("no journal is kept: start the proxy with --journal FILE", status=404)
        return self._journal


def _action(action: Action) -> dict[str, Any]:
    pair = list(action.pair) if action.pair is not None else None
    return {"kind": action.kind, "scope": action.scope, "pair": pair, "reason": action.reason}
