"""The guard: turns verdicts on accuracy into distrust of pairs, of direct turns, of everything split.

Pure, without a clock: `now` is monotonic seconds. Whoever calls `update` or `undo` then hands `Guard.distrust` to the
planner, forgets the homes that each action `forgets`, and starts the statistics of an action's scope anew before the
next `update`: a red verdict that is still there counts as a new one.

Rules:
- Only red is acted upon. Unknown and amber never lead to anything, and no verdict lifts an action: what is distrusted
  serves nobody, so a green verdict on it speaks of the past.
- A red pair is distrusted, and its decode engine gets a new cache salt. Salts are never reused and never taken back.
- When every pair that can be used is distrusted, everything split is: no pair that shows up later is tried either, and
  decode engines that show up then get a salt. Red `route:pd` or `all` alone blames nobody: no action.
- Direct turns are distrusted when `route:direct` is red and no pair explains it. A pair explains it while it is red and
  trusted, and while its action cools down, since homes that it filled were among the answers judged.
- An action starts a cool-down of `cooldown_s`. When it and `retry_s` have passed, what was distrusted is put on
  probation: used again, salts stay. Red on probation distrusts it at once, but not in the very same update, and the
  whole waiting time (cool-down and retry) is twice the last one. Green on probation ends it. `retry_s` None: never,
  only a person trusts again. Direct turns are treated alike: they are not served while distrusted, so that they cannot
  turn green either.
- Everything split is put on probation only together with a pair that can be tried, and no pair before it; it is red
  again when all pairs are distrusted again, and green with `route:pd`.
- What a person undoes is trusted, and not acted upon before a cool-down has passed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import msgspec

from ppd_core.conversation.history import Home
from ppd_core.policy.distrust import Distrust, Pair, new_salt

Verdict = Literal["green", "amber", "red", "unknown"]
GuardMode = Literal["off", "alert", "act"]
ActionKind = Literal[
    "distrust_pair", "trust_pair", "distrust_direct", "trust_direct", "distrust_split", "trust_split", "would_act"
]

ACTION_KINDS: tuple[ActionKind, ...] = get_args(ActionKind)
DIRECT = "route:direct"
SPLIT = "route:pd"
_PAIR = "pair:"
_EPOCH_BASE = re.compile(r"[A-Za-z0-9._-]{1,24}")


def pair_scope(prefill_id: str, decode_id: str) -> str:
    return f"{_PAIR}{prefill_id}>{decode_id}"


def scope_pair(scope: str) -> Pair | None:
    """The pair of a pair's scope, None for other scopes; raises ValueError for `pair:` without two engines."""
    if not scope.startswith(_PAIR):
        return None
    prefill_id, _, decode_id = scope.removeprefix(_PAIR).partition(">")
    if not prefill_id or not decode_id:
        raise ValueError(f"scope: {scope!r} given, must be pair:PREFILL_ID>DECODE_ID")
    return prefill_id, decode_id


class JudgedScopes(msgspec.Struct, frozen=True):
    """Verdicts by scope: `all`, `route:pd`, `route:direct`, `pair:PREFILL_ID>DECODE_ID`; an absent one is unknown."""

    by_scope: Mapping[str, Verdict] = msgspec.field(default_factory=dict)

    def of(self, scope: str) -> Verdict:
        return self.by_scope.get(scope, "unknown")

    @property
    def red_pairs(self) -> tuple[Pair, ...]:
        scopes = sorted(scope for scope, verdict in self.by_scope.items() if verdict == "red")
        return tuple(pair for pair in map(scope_pair, scopes) if pair is not None)


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What the guard did. `pair` is (prefill id, decode id) for what concerns one. `reason` is for people; of
    `would_act` it says what would have been done."""

    kind: ActionKind
    scope: str
    pair: Pair | None = None
    reason: str

    def forgets(self, home: Home) -> bool:
        """For `Conversations.forget_homes`: the decode engine holds KV of a pair that is distrusted from now on."""
        if self.kind != "distrust_pair" or self.pair is None:
            return False
        prefill_id, decode_id = self.pair
        return home.engine_id == decode_id and prefill_id in home.filled_by


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`off`: nothing; `alert`: say what would be done, once per change; `act`: do it."""

    mode: GuardMode = "off"
    cooldown_s: float = 300.0
    retry_s: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("cooldown_s", self.cooldown_s), ("retry_s", self.retry_s)):
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}: {value} given, must be a number of seconds, 0 or more")


class _Held(msgspec.Struct):
    """One scope that was acted upon. `waits_s` is the whole waiting time from the action to probation."""

    action: Action
    state: Literal["distrusted", "probation", "undone"]
    since: float
    waits_s: float


class Guard:
    """`epoch_base` makes the salts of this process its own: no two starts may use the same, as engines outlive them."""

    def __init__(self, settings: GuardSettings, *, epoch_base: str) -> None:
        if not _EPOCH_BASE.fullmatch(epoch_base):
            raise ValueError(
                f"epoch_base: {epoch_base!r} given, must be 1 to 24 letters, digits, dots, dashes or underscores"
            )
        self._settings = settings
        self._epoch_base = epoch_base
        self._epoch = 0
        self._held: dict[str, _Held] = {}
        self._salts: dict[str, str] = {}
        self._would: frozenset[str] = frozenset()

    @property
    def distrust(self) -> Distrust:
        """What the planner must know. Changes with actions, and with decode engines that show up while everything split
        is distrusted."""
        actions = self.actions_in_force
        return Distrust(
            pairs=frozenset(action.pair for action in actions if action.pair is not None),
            is_direct=any(action.kind == "distrust_direct" for action in actions),
            is_split=any(action.kind == "distrust_split" for action in actions),
            salts=dict(self._salts),
        )

    @property
    def actions_in_force(self) -> tuple[Action, ...]:
        """The distrust_* actions that were not lifted, oldest first."""
        held = [each for each in self._held.values() if each.state == "distrusted"]
        return tuple(each.action for each in sorted(held, key=lambda each: each.since))

    def update(self, verdicts: JudgedScopes, pairs: Iterable[Pair], now: float) -> tuple[Action, ...]:
        """Act on the verdicts. `pairs` are those that could be used now, trusted or not."""
        usable = sorted(set(pairs))
        if self._settings.mode == "off":
            return ()
        if self._settings.mode == "alert":
            return self._alert(verdicts, usable)
        self._settle(verdicts, now)
        actions = self._lift(usable, now)
        lifted = {action.scope for action in actions}
        for pair in verdicts.red_pairs:
            scope = pair_scope(*pair)
            if self._may_act(scope, lifted):
                self._renew_salt(pair[1])
                reason = f"{scope} is red: not used, and {pair[1]} no longer finds the KV it holds"
                actions.append(self._act(Action(kind="distrust_pair", scope=scope, pair=pair, reason=reason), now))
        if usable and all(self._is_distrusted(pair_scope(*pair)) for pair in usable) and self._may_act(SPLIT, lifted):
            reason = f"none of {len(usable)} pairs is trusted: nothing is split"
            actions.append(self._act(Action(kind="distrust_split", scope=SPLIT, reason=reason), now))
        if verdicts.of(DIRECT) == "red" and not self._is_explained(verdicts, now) and self._may_act(DIRECT, lifted):
            reason = f"{DIRECT} is red and no pair explains it: later turns get a prefill leg"
            actions.append(self._act(Action(kind="distrust_direct", scope=DIRECT, reason=reason), now))
        if self._is_distrusted(SPLIT):
            for decode_id in sorted({pair[1] for pair in usable} - self._salts.keys()):
                self._renew_salt(decode_id)
        return tuple(actions)

    def undo(self, what: str | None, now: float) -> tuple[Action, ...]:
        """A person trusts a scope again (None: everything). A pair takes the distrust of everything split with it, or
        it would stay unused. Raises ValueError for a scope without an action in force."""
        scopes = [action.scope for action in self.actions_in_force]
        if what is not None:
            if what not in scopes:
                known = ", ".join(scopes) or "nothing"
                raise ValueError(f"scope: {what!r} given, must be one that is distrusted now: {known}")
            scopes = [what] if scope_pair(what) is None or SPLIT not in scopes else [what, SPLIT]
        return tuple(self._trust(scope, "undone", "a person trusts it again", now) for scope in scopes)

    def _alert(self, verdicts: JudgedScopes, usable: list[Pair]) -> tuple[Action, ...]:
        red = verdicts.red_pairs
        wanted = {pair_scope(*pair): f"would distrust {pair_scope(*pair)}: it is red" for pair in red}
        if usable and set(usable) <= set(red):
            wanted[SPLIT] = f"would distrust everything split: all {len(usable)} pairs are red"
        if verdicts.of(DIRECT) == "red" and not red:
            wanted[DIRECT] = f"would distrust direct turns: {DIRECT} is red and no pair is"
        new = [scope for scope in wanted if scope not in self._would]
        self._would = frozenset(wanted)
        return tuple(
            Action(kind="would_act", scope=scope, pair=scope_pair(scope), reason=wanted[scope]) for scope in new
        )

    def _settle(self, verdicts: JudgedScopes, now: float) -> None:
        """Forget what is over: probations that went well, and cool-downs of what a person undid."""
        for scope, held in list(self._held.items()):
            is_well = held.state == "probation" and verdicts.of(scope) == "green"
            if is_well or (held.state == "undone" and now - held.since >= self._settings.cooldown_s):
                del self._held[scope]

    def _lift(self, usable: list[Pair], now: float) -> list[Action]:
        """Put on probation what has waited long enough."""
        due = [scope for scope, held in self._held.items() if self._is_due(held, now)]
        if self._is_distrusted(SPLIT):
            tried = any(pair_scope(*pair) in due or not self._is_distrusted(pair_scope(*pair)) for pair in usable)
            due = due if SPLIT in due and tried else [scope for scope in due if scope == DIRECT]
        reason = "it has waited long enough: used again, on probation"
        return [self._trust(scope, "probation", reason, now) for scope in due]

    def _is_due(self, held: _Held, now: float) -> bool:
        is_asked = self._settings.retry_s is not None
        return is_asked and held.state == "distrusted" and now - held.since >= held.waits_s

    def _may_act(self, scope: str, lifted: set[str]) -> bool:
        held = self._held.get(scope)
        return held is None or (held.state == "probation" and scope not in lifted)

    def _is_distrusted(self, scope: str) -> bool:
        held = self._held.get(scope)
        return held is not None and held.state == "distrusted"

    def _is_explained(self, verdicts: JudgedScopes, now: float) -> bool:
        """A pair may be what made direct answers wrong."""
        if any(not self._is_distrusted(pair_scope(*pair)) for pair in verdicts.red_pairs):
            return True
        cooldown_s = self._settings.cooldown_s
        return any(
            held.action.pair is not None and held.state == "distrusted" and now - held.since < cooldown_s
            for held in self._held.values()
        )

    def _act(self, action: Action, now: float) -> Action:
        before = self._held.get(action.scope)
        waits_s = self._settings.cooldown_s + (self._settings.retry_s or 0.0)
        if before is not None:
            waits_s = 2 * before.waits_s
        self._held[action.scope] = _Held(action, "distrusted", now, waits_s)
        return action

    def _trust(self, scope: str, state: Literal["probation", "undone"], reason: str, now: float) -> Action:
        held = self._held[scope]
        held.state, held.since = state, now
        kinds: Mapping[str, ActionKind] = {"distrust_direct": "trust_direct", "distrust_split": "trust_split"}
        kind = kinds.get(held.action.kind, "trust_pair")
        return Action(kind=kind, scope=scope, pair=held.action.pair, reason=reason)

    def _renew_salt(self, decode_id: str) -> None:
        self._epoch += 1
        self._salts[decode_id] = new_salt(decode_id, f"{self._epoch_base}.{self._epoch}")
