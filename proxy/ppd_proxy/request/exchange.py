"""The life of one request, from its first plan to its last release: a state machine without IO.

Events go in, commands come out; the driver carries the commands out in order. There is one event per phase, never one
per chunk: between `FirstByte` and `LegEnded` the bytes of a stream flow past.

    phase      event            next        commands
    ---------  ---------------  ----------  ----------------------------------------------------------------
    PLANNING   Planned          PREFILL     OpenLeg(prefill), ArmDeadline(prefill)           plans with a prefill engine
                                DECODE      OpenLeg(decode), ArmDeadline(first_token)        all others
                                DECODE      NoteStranded, OpenLeg(decode), ArmDeadline(first_token)  held KV has no use
               Refused          DONE        Respond, or RelayAnswer of the failed leg; NoteStranded
               Stopping         DONE        Respond(503), NoteStranded
    PREFILL    LegEnded 2xx     DECODE      OpenLeg(decode), ArmDeadline(first_token)
                                RELEASING   OpenLeg(release), ArmDeadline(release)           the client has left
                                DONE        Release                                          ... and nothing is held
               LegEnded 4xx     DONE        RelayAnswer, Release
               LegEnded 5xx     PLANNING    Release, MakePlan                                while tries are left
                                DONE        RelayAnswer, Release
               LegFailed        PLANNING    Release, MakePlan                                while tries are left
                                DONE        Respond, Release
               ClientGone       DONE        AbortLeg, Release                                handoffs that may be cut
                                PREFILL                                                      the others finish first
               DeadlinePassed   DONE        AbortLeg, Respond(504), Release
               Stopping         DONE        AbortLeg, Respond(503), Release
    DECODE     FirstByte        STREAMING   StartResponse, ArmDeadline(idle)
               LegEnded 2xx     DONE        RelayAnswer, Release
               LegEnded 4xx     RELEASING   RelayAnswer, OpenLeg(release, apart), ArmDeadline(release)  KV is held
                                DONE        RelayAnswer, Release
               LegEnded 5xx     PLANNING    Release, MakePlan                                while tries are left
                                DONE        RelayAnswer, Release
               LegFailed        PLANNING    NoteStranded, Release, MakePlan                  while tries are left
                                DONE        Respond, NoteStranded, Release
               LegRefused       PLANNING    NoteStranded, Release, MakePlan                  once, then as LegEnded 4xx
                                RELEASING   RelayAnswer, OpenLeg(release, apart), ArmDeadline(release)
                                DONE        RelayAnswer, Release
               ClientGone       RELEASING   ArmDeadline(release)                             KV is held for this leg
                                DONE        AbortLeg, Release
               DeadlinePassed   DONE        AbortLeg, Respond(504), Release
               Stopping         DONE        AbortLeg, Respond(503), Release
    STREAMING  LegEnded         DONE        EndResponse, Release
               LegFailed        DONE        BreakResponse, Release
               ClientGone       DONE        AbortLeg, Release
               DeadlinePassed   DONE        AbortLeg, BreakResponse, Release
               Stopping         DONE        AbortLeg, BreakResponse, Release
    RELEASING  ClientGone       RELEASING                                               it left before, or is answered
               FirstByte        DONE        AbortLeg, Release
               LegEnded         DONE        Release; NoteStranded unless 2xx
               LegFailed        DONE        Release; NoteStranded if the request never went out
               LegRefused       DONE        NoteStranded, Release
               DeadlinePassed   DONE        AbortLeg, Release
               Stopping         DONE        AbortLeg, Release

NoteStranded appears only where KV is held that nobody can take any more. Where the client has left, the commands that
answer it fall away.

Rules:
1. Nothing reaches the client before the decode leg's status and, for streams, its first decisive event.
2. Exactly one of RelayAnswer, Respond, EndResponse, BreakResponse is issued unless the client has left.
3. Every plan that opened a leg is released exactly once.
4. KV held for a decode leg is never dropped silently: a leg is opened or kept for it until the engine took it. A
   prefill answer that a decode leg may have consumed, or refused, is never used again (vllm#52234).
5. After a byte was sent there is no retry; before it, 4xx is never retried, everything else as long as the planner
   finds an engine that has not failed the request, and at most `retries` times where that is not None. The first
   retry may repeat an engine: where it is the only one, it gets a second chance. One try more, which the client does
   not pay, follows what broke by the proxy's own wishes (`is_our_doing`, `LegRefused`).
"""

from __future__ import annotations

from enum import Enum

from ppd_core.fleet.engine import Engine
from ppd_core.policy.plan import DecisionReason, Plan
from ppd_proxy.request.signals import (
    AbortLeg,
    ArmDeadline,
    BreakResponse,
    ClientGone,
    Commands,
    DeadlinePassed,
    EndResponse,
    Event,
    LegRefused,
    MakePlan,
    NoteStranded,
    OpenLeg,
    Planned,
    Refused,
    RelayAnswer,
    Release,
    Respond,
    StartResponse,
    Stopping,
)  # fmt: skip
from ppd_proxy.upstream.events import FirstByte, LegEnded, LegFailed
from ppd_wire.errors import EngineFailure, Failure, ProxyError


class Phase(Enum):
    PLANNING = "planning"
    PREFILL = "prefill"
    DECODE = "decode"
    STREAMING = "streaming"
    RELEASING = "releasing"
    DONE = "done"


_PLANNING, _PREFILL, _DECODE, _STREAMING, _RELEASING, _ = Phase
_NO_ENGINES: frozenset[str] = frozenset()
_NO_PAIRS: frozenset[tuple[str, str]] = frozenset()
_NOTHING: Commands = ()
_OPEN_PREFILL: Commands = (OpenLeg("prefill"), ArmDeadline("prefill"))
_OPEN_DECODE: Commands = (OpenLeg("decode"), ArmDeadline("first_token"))
_OPEN_RELEASE: Commands = (OpenLeg("release"), ArmDeadline("release"))
_OPEN_APART: Commands = (OpenLeg("release", is_apart=True), ArmDeadline("release"))
_START: Commands = (StartResponse(), ArmDeadline("idle"))
_END: Commands = (EndResponse(), Release())
_RELEASE: Commands = (Release(),)
_STRANDED: Commands = (NoteStranded(),)
_ABORT: Commands = (AbortLeg(), Release())


class Exchange:
    """One request. `start()` gives the first commands, `handle(event)` the next ones; ends in phase DONE."""

    __slots__ = (
        "_failed", "_has_free_try", "_has_kv", "_may_repeat", "_planned", "_relayable", "_retries", "_tried_pairs",
        "_unreachable",
        "is_client_gone", "phase", "plan",
    )  # fmt: skip

    def __init__(self, retries: int | None) -> None:
        self.phase = Phase.PLANNING
        self.plan: Plan | None = None
        self.is_client_gone = False
        self._planned: Planned | None = None
        self._retries = retries
        self._failed: frozenset[str] = _NO_ENGINES
        self._unreachable: frozenset[str] = _NO_ENGINES
        self._tried_pairs: frozenset[tuple[str, str]] = _NO_PAIRS
        self._has_kv = False
        self._has_free_try = self._may_repeat = True
        self._relayable: int | ProxyError | None = None

    def start(self) -> Commands:
        return (MakePlan(),)

    def handle(self, event: Event) -> Commands:
        """The commands for `event`; one without meaning in this phase (a late timer, a late abort) has none."""
        if type(event) is Stopping:
            return self._stop(event.error)
        phase = self.phase
        if phase is _DECODE:
            return self._while_decode(event)
        if phase is _PLANNING:
            return self._while_planning(event)
        if phase is _STREAMING:
            return self._while_streaming(event)
        if phase is _PREFILL:
            return self._while_prefill(event)
        if phase is _RELEASING:
            return self._while_releasing(event)
        return _NOTHING

    def _stop(self, error: ProxyError) -> Commands:
        """Nobody waits any more: as if the deadline of every phase had passed."""
        phase, is_begun = self.phase, self.phase is Phase.STREAMING
        if phase is Phase.DONE:
            return _NOTHING
        if phase is Phase.RELEASING:
            return self._go(Phase.DONE, _ABORT)
        answer: Commands = (BreakResponse(error) if is_begun else Respond(error),) if not self.is_client_gone else ()
        if phase is Phase.PLANNING:
            return self._go(Phase.DONE, (*answer, *(_STRANDED if self._has_kv else _NOTHING)))
        return self._go(Phase.DONE, (AbortLeg(), *answer, Release()))

    def _while_planning(self, event: Event) -> Commands:
        if isinstance(event, ClientGone):
            self.is_client_gone = True
            return _NOTHING
        if isinstance(event, Planned):
            self._planned, self.plan = event, event.plan
            if self.is_client_gone:
                return self._go(Phase.RELEASING, _OPEN_RELEASE) if self._has_kv else self._go(Phase.DONE, _RELEASE)
            if event.plan.prefill is None and self._has_kv:
                self._has_kv = False
                return self._go(Phase.DECODE, (*_STRANDED, *_OPEN_DECODE))
            if event.plan.prefill is None or self._has_kv:
                return self._go(Phase.DECODE, _OPEN_DECODE)
            return self._go(Phase.PREFILL, _OPEN_PREFILL)
        if isinstance(event, Refused):
            stranded = _STRANDED if self._has_kv else _NOTHING
            return self._go(Phase.DONE, (*self._refusal(event.error), *stranded))
        return _NOTHING

    def _refusal(self, error: ProxyError) -> Commands:
        """No further engine: the client gets what the last one said, or else the planner's word."""
        if self.is_client_gone:
            return _NOTHING
        match self._relayable:
            case int(status):
                return (RelayAnswer(status),)
            case None:
                return (Respond(error),)
            case failure:
                return (Respond(failure),)

    def _while_prefill(self, event: Event) -> Commands:
        planned = self._must_plan()
        match event:
            case LegEnded(status=status, has_kv=has_kv) if status < 400:
                self._has_kv = has_kv and planned.holds_kv
                if not self.is_client_gone:
                    return self._go(Phase.DECODE, _OPEN_DECODE)
                return self._go(Phase.RELEASING, _OPEN_RELEASE) if self._has_kv else self._go(Phase.DONE, _RELEASE)
            case LegEnded(status=status):
                if status < 500 or event.is_client_fault:
                    return self._go(Phase.DONE, (*self._relay(status, event.is_client_fault), Release()))
                return self._retry(status, planned.plan.prefill, DecisionReason.PREFILL_FAILED)
            case LegFailed(error=error, was_sent=was_sent):
                engine = planned.plan.prefill
                return self._retry(error, engine, DecisionReason.PREFILL_FAILED, is_unreachable=not was_sent)
            case ClientGone():
                self.is_client_gone = True
                return self._go(Phase.DONE, _ABORT) if planned.can_cut_prefill else _NOTHING
            case DeadlinePassed(deadline="prefill"):
                return self._time_out("the prefill engine gave no answer in time")
        return _NOTHING

    def _while_decode(self, event: Event) -> Commands:
        planned = self._must_plan()
        match event:
            case FirstByte():
                self._has_kv = False
                return self._go(Phase.STREAMING, _START)
            case LegEnded(status=status) if status < 400:
                self._has_kv = False
                return self._go(Phase.DONE, (*self._relay(status), Release()))
            case LegEnded(status=status) if status < 500 or event.is_client_fault:
                return self._give_back(self._relay(status, event.is_client_fault))
            case LegEnded(status=status):
                self._has_kv = False
                return self._retry(status, planned.plan.decode, DecisionReason.DECODE_FAILED)
            case LegFailed(error=error, was_sent=was_sent, is_our_doing=is_free):
                self._has_kv = self._has_kv and not was_sent
                engine = planned.plan.decode
                cause = DecisionReason.DECODE_FAILED
                return self._retry(error, engine, cause, is_unreachable=not was_sent, is_free=is_free)
            case LegRefused():
                if not self._has_free_try:
                    return self._give_back(self._relay(400))
                self._has_free_try = False
                stranded = _STRANDED if self._has_kv else _NOTHING
                self._has_kv = False
                again = self._again(DecisionReason.DECODE_FAILED, is_free=True)
                return self._go(Phase.PLANNING, (*stranded, Release(), again))
            case ClientGone():
                self.is_client_gone = True
                if self._has_kv:
                    return self._go(Phase.RELEASING, (ArmDeadline("release"),))
                return self._go(Phase.DONE, _ABORT)
            case DeadlinePassed(deadline="first_token"):
                return self._time_out("the decode engine gave no first token in time")
        return _NOTHING

    def _give_back(self, answer: Commands) -> Commands:
        """The answer goes to the client; KV that the decode engine did not take is held no longer."""
        if not self._has_kv:
            return self._go(Phase.DONE, (*answer, Release()))
        return self._go(Phase.RELEASING, (*answer, *_OPEN_APART))

    def _while_streaming(self, event: Event) -> Commands:
        match event:
            case LegEnded():
                return self._go(Phase.DONE, _END)
            case LegFailed(error=error):
                return self._go(Phase.DONE, (BreakResponse(error), Release()))
            case ClientGone():
                self.is_client_gone = True
                return self._go(Phase.DONE, _ABORT)
            case DeadlinePassed(deadline="idle"):
                error = EngineFailure("the engine stopped sending", reason=Failure.ENGINE_TIMEOUT, status=504)
                return self._go(Phase.DONE, (AbortLeg(), BreakResponse(error), Release()))
        return _NOTHING

    def _while_releasing(self, event: Event) -> Commands:
        """The client has its answer or has left; the leg goes on until the decode engine took the KV."""
        match event:
            case FirstByte() | DeadlinePassed(deadline="release"):
                return self._go(Phase.DONE, _ABORT)
            case LegEnded(status=status):
                return self._go(Phase.DONE, _RELEASE if status < 400 else (*_STRANDED, *_RELEASE))
            case LegFailed(was_sent=was_sent):
                return self._go(Phase.DONE, _RELEASE if was_sent else (*_STRANDED, *_RELEASE))
            case LegRefused():
                return self._go(Phase.DONE, (*_STRANDED, *_RELEASE))
        return _NOTHING

    def _retry(
        self, failure: int | EngineFailure, engine: Engine | None, cause: DecisionReason, *,
        is_unreachable: bool = False, is_free: bool = False,
    ) -> Commands:  # fmt: skip
        """Another plan while tries are left, or where it costs none; otherwise the failure goes to the client."""
        self._relayable = failure
        name = frozenset() if engine is None else frozenset({engine.id})
        if is_unreachable:
            self._unreachable |= name
        else:
            self._failed |= name
        is_free = is_free and self._has_free_try
        is_at_limit = self._retries is not None and self._retries <= 0
        if self.is_client_gone or (is_at_limit and not is_free):
            last = self._refusal(failure) if isinstance(failure, EngineFailure) else self._relay(failure)
            stranded = _STRANDED if self._has_kv else _NOTHING
            return self._go(Phase.DONE, (*last, *stranded, Release()))
        self._note_tried()
        if is_free:
            self._has_free_try = False
        elif self._retries is not None:
            self._retries -= 1
        keep = self._rebindable()
        stranded = _STRANDED if self._has_kv and keep is None else _NOTHING
        self._has_kv = keep is not None
        return self._go(Phase.PLANNING, (*stranded, Release(), self._again(cause, keep=keep, is_free=is_free)))

    def _note_tried(self) -> None:
        plan = self._must_plan().plan
        if plan.prefill is not None:
            self._tried_pairs |= {(plan.prefill.id, plan.decode.id)}

    def _again(self, cause: DecisionReason, *, keep: Engine | None = None, is_free: bool = False) -> MakePlan:
        may_repeat = is_free or self._may_repeat
        self._may_repeat = self._may_repeat and is_free
        return MakePlan(
            failed=self._failed, unreachable=self._unreachable, cause=cause, keep=keep,
            tried_pairs=self._tried_pairs, may_repeat=may_repeat, is_free=is_free,
        )  # fmt: skip

    def _rebindable(self) -> Engine | None:
        """The prefill engine whose KV no decode leg has touched and may go to another decode engine."""
        planned = self._must_plan()
        return planned.plan.prefill if self._has_kv and planned.is_rebindable else None

    def _relay(self, status: int, is_client_fault: bool = False) -> Commands:
        if self.is_client_gone:
            return _NOTHING
        return (RelayAnswer(400 if is_client_fault else status),)

    def _time_out(self, message: str) -> Commands:
        error = EngineFailure(message, reason=Failure.ENGINE_TIMEOUT, status=504)
        answer: Commands = _NOTHING if self.is_client_gone else (Respond(error),)
        return self._go(Phase.DONE, (AbortLeg(), *answer, Release()))

    def _go(self, phase: Phase, commands: Commands) -> Commands:
        self.phase = phase
        return commands

    def _must_plan(self) -> Planned:
        if self._planned is None:
            raise RuntimeError(f"phase {self.phase} without a plan")
        return self._planned
