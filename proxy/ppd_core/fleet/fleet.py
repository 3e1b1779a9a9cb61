"""Which engines there are and which of them take new requests.

Owns every engine's record and the rules by which it joins, goes down, comes back, drains and leaves. Does no IO and
reads no clock: the callers bring signs of life (announcements, registrations, probe results) together with `now`
(monotonic seconds), and get back what changed, to log and to count.

State of an engine, from two signals and one mark:

    signal   good at the start     turns bad                              good again
    beats    always                silent for the TTL (3 missed, 10 s)    after 2 beats
    probes   never                 after 3 missed in a row                after 2 good (1 if it never was good)

    down      a signal is bad. An engine that sends no beats (static, or registered without a TTL) has good beats.
    draining  both are good, and an operator drained it: no new requests.
    unhealthy both are good, but its last 5 answers all failed: no requests where there is another engine of its role,
              but one every 2 s, to see whether it answers again. One answer that did not fail is enough.
    up        both are good.

A live beat never brings back an engine whose probes fail, nor the reverse.

A missed probe was refused, or answered that the engine is not well; a late one got no answer in time, and counts half.
Lateness alone never takes out the last engine of a role that is up: a busy engine is better than none.

- Coming back from `down` gives a new `incarnation`: the engine may have been restarted, its KV counts as lost. So does
  another role or ZMQ address while it is up. No incarnation of an id is used twice, not even after it left.
- Announcements change nothing about an engine that an operator or a registration named: anybody can send one. What was
  announced before it was named is forgotten. Only with `trust_announced`, and where its handoff is p2p_nccl anyway,
  they tell the KV address and capability that were not stated; never the role: an engine with `kv_role=kv_both`
  announces itself as prefill whatever it is used for.
- The latest registration wins over all. What a registration leaves out stays as it was.
- Draining lasts until the engine is removed or forgotten. Neither heartbeats nor a restart undo it: an engine that
  went down while draining comes back draining. To use it again, remove it and register it anew.
- Removing forgets. An engine that goes on announcing itself joins again with its next beat; to keep it out, drain it.
- An engine whose beats stopped stays listed as `down` for `forget_after_s`, then it leaves. Engines that send no beats
  stay until they are removed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ppd_core.fleet.address import check_zmq_address, parse_address, parse_url
from ppd_core.fleet.announced import RejectedAnnouncement, objection
from ppd_core.fleet.engine import ROLES, Engine, FleetView, HandoffName, Role
from ppd_core.fleet.member import Member
from ppd_core.fleet.signs import FAILED_RUN, TRIAL_INTERVAL_S, Signal
from ppd_core.fleet.stated import check_handoff, check_role, check_ttl


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that happened to one engine. `up`, `unhealthy`, `down` and `draining` repeat the engine's state; they
    are also reported when the state stayed and something else became known (an address, a role, a restart)."""

    engine: Engine
    what: Literal["joined", "up", "unhealthy", "down", "draining", "left"]
    why: str


class Fleet:
    """All known engines. Every method that takes something in returns what changed, in order."""

    def __init__(
        self,
        *,
        default_handoff: Literal["auto", "nixl", "p2p_nccl", "none"],
        announcement_ttl_s: float = 10.0,
        missed_limit: int = 3,
        good_limit: int = 2,
        forget_after_s: float = 600.0,
        trust_announced: bool = False,
        max_announced: int = 256,
    ) -> None:
        self._default_handoff = default_handoff
        self._announcement_ttl_s = announcement_ttl_s
        self._missed_limit = missed_limit
        self._good_limit = good_limit
        self._forget_after_s = forget_after_s
        self._trust_announced = trust_announced
        self._max_announced = max_announced
        self._members: dict[str, Member] = {}
        self.failing: set[str] = set()
        """Engines whose last answer was a failure; of all others a good answer is no news."""
        self._ended_lives = 0
        self._engines: tuple[Engine, ...] = ()
        self._view = FleetView()

    @property
    def view(self) -> FleetView:
        """The engines that take new requests; the same object until something changes."""
        return self._view

    def engines(self) -> tuple[Engine, ...]:
        """All engines, also those that are down or draining, ordered by id."""
        return self._engines

    def get(self, engine_id: str) -> Engine | None:
        member = self._members.get(engine_id)
        return member.engine if member else None

    # What comes in

    def add_static(self, url: str, role: Role, now: float) -> tuple[Change, ...]:
        """Add an engine of the configuration: `down` until its first good probe, never forgotten."""
        engine_id, url = parse_url(url)
        member = self._members.get(engine_id)
        if member is None:
            engine = self._new_engine(engine_id, url, role, source="static")
            return self._join(self._new_member(engine, now, silence_s=None))
        member.silence_s, member.beats = None, Signal()
        facts = replace(member.known(trust_announced=self._trust_announced), url=url, role=role, source="static")
        return self._restate(member, facts, "configured")

    def announce(
        self, *, role: Role, http_address: str, zmq_address: str, is_ppd: bool, now: float
    ) -> tuple[Change, ...]:
        """A beat over ZMQ; both addresses are `host:port`. A new engine is down until its first good probe.

        What `objection` objects to changes nothing, and is no sign of life of an engine that was named otherwise.
        """
        engine_id, url = parse_address(http_address, field="http_address")
        check_zmq_address(zmq_address)
        if self.objection(http_address, zmq_address) is not None:
            return ()
        member = self._members.get(engine_id)
        if member is None:
            engine = self._new_engine(engine_id, url, role, source="announced")
            engine = replace(engine, zmq_address=zmq_address, is_ppd=is_ppd)
            return self._join(self._new_member(engine, now, silence_s=self._announcement_ttl_s))
        if member.engine.source != "announced":
            facts = member.completed(zmq_address, is_ppd=is_ppd) if self._trust_announced else member.engine
            return self._restate(member, facts, "announced")
        changes = self._beat(member, now)
        facts = replace(member.engine, role=role, zmq_address=zmq_address, is_ppd=is_ppd)
        return changes + self._restate(member, facts, "announced")

    def objection(self, http_address: str, zmq_address: str) -> RejectedAnnouncement | None:
        """Why an announcement with these addresses would not be accepted; None where it would be, or says no news."""
        return objection(
            self.get(parse_address(http_address, field="http_address")[0]),
            zmq_address,
            announced=sum(engine.source == "announced" for engine in self._engines),
            max_announced=self._max_announced,
            trust_announced=self._trust_announced,
        )

    def register(
        self,
        *,
        url: str,
        role: str,
        handoff: str | None,
        zmq_address: str | None,
        ttl_s: float | None,
        now: float,
        is_ppd: bool | None = None,
    ) -> tuple[Change, ...]:
        """Add an engine or repeat it as a heartbeat; None leaves what is known.

        With `ttl_s` the engine must be registered again within that time; without it no heartbeats are expected. A new
        engine is down until its first good probe. The role may change: that is a restart.
        """
        engine_id, url = parse_url(url)
        checked_role, checked_handoff = check_role(role), check_handoff(handoff)
        check_ttl(ttl_s)
        if zmq_address is not None:
            check_zmq_address(zmq_address)
        member = self._members.get(engine_id)
        if member is None:
            engine = self._new_engine(engine_id, url, checked_role, source="registered")
            engine = replace(engine, zmq_address=zmq_address, is_ppd=bool(is_ppd))
            member = self._new_member(engine, now, silence_s=ttl_s)
            member.stated_handoff, member.stated_zmq_address = checked_handoff, zmq_address
            member.stated_ppd = is_ppd
            return self._join(member)
        changes = self._beat(member, now)
        old = member.known(trust_announced=self._trust_announced)
        if old.source != "static":
            member.silence_s = ttl_s
        if member.silence_s is None:
            member.beats = Signal()
        member.stated_handoff = checked_handoff or member.stated_handoff
        member.stated_zmq_address = zmq_address or member.stated_zmq_address
        member.stated_ppd = member.stated_ppd if is_ppd is None else is_ppd
        facts = replace(
            old,
            url=url,
            role=checked_role,
            source="static" if old.source == "static" else "registered",
            zmq_address=zmq_address or old.zmq_address,
            is_ppd=old.is_ppd if is_ppd is None else is_ppd,
        )
        return changes + self._restate(member, facts, "registered")

    def probed(self, engine_id: str, is_healthy: bool, now: float) -> tuple[Change, ...]:
        """The result of one health probe. Unknown ids are ignored: the engine left while it was being probed."""
        member = self._members.get(engine_id)
        if member is None:
            return ()
        if not is_healthy:
            return self.leg_failed(engine_id, now)
        changes = self._check_silence(member, now)
        member.probes.succeed()
        return changes + self._settle(member, "good probe")

    def late(self, engine_id: str, now: float) -> tuple[Change, ...]:
        """A probe, or a request's connection, got no answer in time. Unknown ids are ignored."""
        member = self._members.get(engine_id)
        if member is None:
            return ()
        changes = self._check_silence(member, now)
        member.probes.be_late(
            missed_limit=self._missed_limit, good_limit=self._good_limit, is_spared=self._is_last(member.engine)
        )
        return changes + self._settle(member, f"{member.probes.lates} probes without an answer in time")

    def answered(self, engine_id: str, failure: str | None, now: float) -> tuple[Change, ...]:
        """How an answer ended: `failure` says what was wrong with it, None: nothing. Unknown ids are ignored."""
        member = self._members.get(engine_id)
        if member is None or (failure is None and not member.failed_answers):
            return ()
        if failure is None:
            member.failed_answers = 0
            self.failing.discard(engine_id)
            return self._settle(member, "good answer")
        member.failed_answers += 1
        self.failing.add(engine_id)
        if member.failed_answers == FAILED_RUN:
            member.tried_at = now
        return self._settle(member, f"{member.failed_answers} answers in a row failed, the last one: {failure}")

    def due_trials(self, now: float) -> frozenset[str]:
        """The unhealthy engines that may get one request now, to see whether they answer again."""
        return frozenset(
            id_ for id_ in self._view.unhealthy if now - self._members[id_].tried_at >= TRIAL_INTERVAL_S
        )  # fmt: skip

    def tried(self, engine_id: str, now: float) -> None:
        """An unhealthy engine gets its trial request."""
        if (member := self._members.get(engine_id)) is not None:
            member.tried_at = now

    def found_dead(self, engine_id: str) -> Literal["refusals", "silence"] | None:
        """By which sign an engine counts as dead to requests that wait there; None while it does not. An engine whose
        beats alone stopped may still answer."""
        member = self._members.get(engine_id)
        if member is None or member.probes.is_good:
            return None
        return "silence" if member.probes.lates else "refusals"

    def leg_failed(self, engine_id: str, now: float) -> tuple[Change, ...]:
        """A request could not reach the engine: as much a sign as a missed probe. Unknown ids are ignored."""
        member = self._members.get(engine_id)
        if member is None:
            return ()
        changes = self._check_silence(member, now)
        member.probes.miss(missed_limit=self._missed_limit, good_limit=self._good_limit)
        return changes + self._settle(member, f"{member.probes.misses} missed probes or failed legs")

    def drain(self, engine_id: str) -> tuple[Change, ...]:
        """Send no new requests to an engine until it is removed. Unknown ids are ignored."""
        member = self._members.get(engine_id)
        if member is None:
            return ()
        member.is_drained = True
        return self._settle(member, "drain requested")

    def remove(self, engine_id: str) -> tuple[Change, ...]:
        """Forget an engine and all that was stated about it. Unknown ids are ignored."""
        return self._leave(engine_id, "removed") if engine_id in self._members else ()

    def expire(self, now: float) -> tuple[Change, ...]:
        """Take out every engine whose beats stopped, and forget those silent for long. Call it about once a second."""
        changes: tuple[Change, ...] = ()
        for member in tuple(self._members.values()):
            changes += self._check_silence(member, now)
            if member.silence_s is not None and now - member.beat_at >= member.silence_s + self._forget_after_s:
                changes += self._leave(member.engine.id, f"silent for {now - member.beat_at:.0f} s")
        return changes

    # What becomes of it

    def _new_engine(
        self, engine_id: str, url: str, role: Role, *, source: Literal["static", "announced", "registered"]
    ) -> Engine:
        return Engine(
            id=engine_id,
            url=url,
            role=role,
            handoff="none",  # derived by _settle, like the state
            state="down",
            source=source,
            incarnation=self._ended_lives,
        )

    def _new_member(self, engine: Engine, now: float, *, silence_s: float | None) -> Member:
        """Every engine must first answer a probe: P2pNccl engines announce themselves before their HTTP server runs."""
        probes = Signal(is_good=False)
        return Member(engine=engine, beats=Signal(), probes=probes, beat_at=now, silence_s=silence_s)

    def _join(self, member: Member) -> tuple[Change, ...]:
        source = member.engine.source
        self._members[member.engine.id] = member
        self._settle(member, source)
        self._publish()
        return (Change(engine=member.engine, what="joined", why=source),)

    def _leave(self, engine_id: str, why: str) -> tuple[Change, ...]:
        member = self._members.pop(engine_id)
        self.failing.discard(engine_id)
        # Should the id join again, it must not continue the incarnation that conversations still point to.
        self._ended_lives += 1
        self._publish()
        return (Change(engine=member.engine, what="left", why=why),)

    def _beat(self, member: Member, now: float) -> tuple[Change, ...]:
        changes = self._check_silence(member, now)
        member.beat_at = now
        member.beats.succeed()
        return changes

    def _check_silence(self, member: Member, now: float) -> tuple[Change, ...]:
        """Asked on every sign of life too, so that what an engine is does not depend on when `expire` ran."""
        if member.silence_s is None or now - member.beat_at < member.silence_s:
            return ()
        member.beats.lose(self._good_limit)
        return self._settle(member, f"silent for {now - member.beat_at:.0f} s")

    def _restate(self, member: Member, facts: Engine, why: str) -> tuple[Change, ...]:
        """Take over what became known; another role or ZMQ address can only come from a restarted engine."""
        old = member.engine
        if facts.role != old.role or (old.zmq_address is not None and facts.zmq_address != old.zmq_address):
            member.is_kv_lost = True
            why += " with another role or ZMQ address"
        return self._settle(member, why, facts)

    def _settle(self, member: Member, why: str, facts: Engine | None = None) -> tuple[Change, ...]:
        """Derive state, incarnation and handoff, and publish if anything is different."""
        old = member.engine
        facts = facts or old
        is_live = member.beats.is_good and member.probes.is_good
        if old.state != "down" and not is_live:
            member.is_kv_lost = True
        if not is_live:
            member.failed_answers = 0  # it comes back with a clean slate
            self.failing.discard(member.engine.id)
        state = member.state
        incarnation = old.incarnation
        if is_live and member.is_kv_lost:
            member.is_kv_lost = False
            self._ended_lives += 1
            incarnation = self._ended_lives
        engine = replace(
            facts,
            handoff=self._handoff(member, facts),
            state=state,
            incarnation=incarnation,
            is_trusted=facts.source != "announced" or self._trust_announced,
        )
        if engine == old:
            return ()
        member.engine = engine
        self._publish()
        return (Change(engine=engine, what=state, why=why),)

    def _is_last(self, engine: Engine) -> bool:
        """No other engine of its role is up."""
        return engine.state in ("up", "unhealthy") and all(
            other.id == engine.id or other.role != engine.role or other.state != "up" for other in self._engines
        )

    def _handoff(self, member: Member, facts: Engine) -> HandoffName:
        if member.stated_handoff is not None:
            return member.stated_handoff
        if self._default_handoff != "auto":
            return self._default_handoff
        return "nixl" if facts.zmq_address is None else "p2p_nccl"

    def _publish(self) -> None:
        self._engines = tuple(self._members[engine_id].engine for engine_id in sorted(self._members))
        usable = [engine for engine in self._engines if engine.state in ("up", "unhealthy")]
        unhealthy = frozenset(engine.id for engine in usable if engine.state == "unhealthy")
        by_role = {role: tuple(engine for engine in usable if engine.role == role) for role in ROLES}
        self._view = FleetView(**by_role, unhealthy=unhealthy)
