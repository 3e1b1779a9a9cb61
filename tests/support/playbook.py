"""Exchanges as playbooks: an event in, the commands expected, the next event, the commands expected, ...

Commands are compared as short sentences, so a failure shows the whole play in words. `Watch` follows any play and
holds it to the rules at the top of `ppd_proxy/request/exchange.py`.
"""

from __future__ import annotations

from copy import copy

from ppd_core.handoff.registry import HANDOFFS
from ppd_core.policy.plan import DecisionReason, Plan
from ppd_proxy.request.exchange import Exchange, Phase
from ppd_proxy.request.signals import (
    AbortLeg,
    ArmDeadline,
    BreakResponse,
    ClientGone,
    Command,
    Commands,
    Deadline,
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
from ppd_wire.errors import EngineFailure, Failure, NoRoute, ProxyError

GONE, FIRST_BYTE, LEG_REFUSED = ClientGone(), FirstByte(), LegRefused()
STOPPING = Stopping(ProxyError("the proxy is stopping", status=503, reason=Failure.STOPPING, source="proxy"))
EXCHANGE_FACTS = tuple(
    name for name in dir(Exchange) if not name.startswith("__") and not callable(getattr(Exchange, name))
)
ANSWERS = (RelayAnswer, Respond, EndResponse, BreakResponse)


def planned(plan: Plan) -> Planned:
    """What the request's own side answers to MakePlan: the plan and what its handoff states."""
    handoff = HANDOFFS[plan.handoff]
    return Planned(
        plan=plan,
        holds_kv=handoff.holds_kv,
        can_cut_prefill=handoff.cancel_prefill == "abort",
        is_rebindable=handoff.is_rebindable,
    )


def refused(reason: DecisionReason = DecisionReason.NO_DECODE_ENGINE) -> Refused:
    return Refused(NoRoute("no route", reason=reason))


def ended(status: int = 200, *, kv: bool = False, is_client_fault: bool = False) -> LegEnded:
    return LegEnded(status=status, has_kv=kv, is_client_fault=is_client_fault)


def unreachable() -> LegFailed:
    error = EngineFailure("connection refused", reason=Failure.ENGINE_UNREACHABLE, status=503)
    return LegFailed(error=error, was_sent=False)


def broken(*, by_us: bool = False) -> LegFailed:
    error = EngineFailure("the engine closed the connection", reason=Failure.ENGINE_ERROR)
    return LegFailed(error=error, is_our_doing=by_us)


def passed(deadline: Deadline) -> DeadlinePassed:
    return DeadlinePassed(deadline)


def told(command: Command) -> str:
    """A command in words, without what no test looks at (the text of errors)."""
    name = type(command).__name__
    match command:
        case MakePlan(failed=failed, unreachable=away, cause=cause, keep=keep):
            facts = [str(cause)] if cause is not None else []
            avoided = (("failed", failed), ("unreachable", away))
            facts += [f"{what}={'+'.join(sorted(ids))}" for what, ids in avoided if ids]
            facts += [f"keep={keep.id}"] if keep is not None else []
            return f"{name}({' '.join(facts)})" if facts else name
        case OpenLeg(kind, is_apart=True):
            return f"{name}({kind}, apart)"
        case OpenLeg(detail) | ArmDeadline(detail) | RelayAnswer(detail):
            return f"{name}({detail})"
        case Respond(error) | BreakResponse(error):
            return f"{name}({error.status} {error.reason})"
    return name


def said(event: Event) -> str:
    match event:
        case Planned(plan=plan):
            return f"Planned({plan.route} {plan.handoff})"
        case LegEnded(status=status, has_kv=has_kv, is_client_fault=fault):
            return f"LegEnded({status}{' with KV' if has_kv else ''}{', client fault' if fault else ''})"
        case LegFailed(was_sent=was_sent, is_our_doing=is_ours):
            return f"LegFailed({'sent' if was_sent else 'not sent'}{', our doing' if is_ours else ''})"
        case DeadlinePassed(deadline):
            return f"DeadlinePassed({deadline})"
    return type(event).__name__


def may_have_consumed(event: LegEnded | LegFailed | LegRefused | FirstByte) -> bool:
    """Whether a leg that was offered KV may have taken it: not when it was refused or never went out."""
    match event:
        case LegEnded(status=status, is_client_fault=is_client_fault):
            return not (400 <= status < 500 or is_client_fault)
        case LegFailed(was_sent=was_sent):
            return was_sent
    return not isinstance(event, LegRefused)


def copied(exchange: Exchange) -> Exchange:
    """Another one in the same state; compiled classes know no `copy`."""
    other = Exchange(None)
    for name in EXCHANGE_FACTS:
        setattr(other, name, getattr(exchange, name))
    return other


class Playbook:
    """One exchange played against expectations. `on` takes an event and the commands that must follow, in order."""

    def __init__(self, *, retries: int | None = 1) -> None:
        self.exchange = Exchange(retries)
        self.watch = Watch(self.exchange)
        self._play: list[str] = []
        self._expect("start", self.watch.start(), ("MakePlan",))

    def on(self, event: Event, *expected: str) -> Playbook:
        return self._expect(said(event), self.watch.handle(event), expected)

    def _expect(self, event: str, commands: Commands, expected: tuple[str, ...]) -> Playbook:
        got = tuple(told(command) for command in commands)
        self._play.append(f"{event:34} -> {self.exchange.phase.name:9} {', '.join(got) or '(nothing)'}")
        if got != expected:
            play = "\n  ".join(self._play)
            raise AssertionError(f"\n  {play}\n  expected instead: {', '.join(expected) or '(nothing)'}")
        self.watch.check()
        return self

    def ends(self) -> None:
        """The exchange is over, and nothing that comes late moves it."""
        assert self.exchange.phase is Phase.DONE, self._play[-1]
        for event in (GONE, FIRST_BYTE, ended(), ended(500), broken(), passed("release"), planned(self._some_plan())):
            self.on(event)

    def _some_plan(self) -> Plan:
        if self.exchange.plan is None:
            raise AssertionError("no plan was ever made")
        return self.exchange.plan


class Watch:
    """Follows one exchange and collects what breaks a rule.

    Knows only what a caller knows: which leg is open, what the engines answered, which commands came.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.breaches: list[str] = []
        self.leg: str | None = None
        self.deadline: Deadline | None = None
        self.is_gone = False
        self.must_plan: MakePlan | None = None
        self.plans = self.releases = self.plan_requests = 0
        self._answers: list[str] = []
        self._is_started = False
        self._is_leg_touching_kv = False
        self._is_kv_held = False

    def branch(self) -> Watch:
        """Another one at the same place of the play, which goes on by itself. An exchange holds frozen values only."""
        other = copy(self)
        other.exchange = copied(self.exchange)
        other.breaches, other._answers = list(self.breaches), list(self._answers)
        return other

    def start(self) -> Commands:
        return self._follow(self.exchange.start())

    def handle(self, event: Event) -> Commands:
        was_done = self.exchange.phase is Phase.DONE
        if not was_done:
            self._note_event(event)
        commands = self._follow(self.exchange.handle(event))
        if was_done and (commands or self.exchange.phase is not Phase.DONE):
            self._breach(f"{said(event)} after the end gave {[told(each) for each in commands]}")
        return commands

    def check(self) -> None:
        assert not self.breaches, self.breaches

    def _breach(self, what: str) -> None:
        self.breaches.append(what)

    def _note_event(self, event: Event) -> None:
        match event:
            case Planned() if self.exchange.phase is Phase.PLANNING:
                self.plans += 1
                self.must_plan = None
            case Refused() if self.exchange.phase is Phase.PLANNING:
                self.must_plan = None
            case ClientGone():
                self.is_gone = True
            case LegEnded() | LegFailed() | LegRefused() | FirstByte() if self.leg is not None:
                self._note_leg(event)

    def _note_leg(self, event: LegEnded | LegFailed | LegRefused | FirstByte) -> None:
        plan = self.exchange.plan
        if self.leg == "prefill" and isinstance(event, LegEnded) and event.status < 400 and plan is not None:
            self._is_kv_held = event.has_kv and HANDOFFS[plan.handoff].holds_kv
        elif self._is_leg_touching_kv:
            self._is_kv_held = self._is_kv_held and not may_have_consumed(event)
        if not isinstance(event, FirstByte):
            self.leg = None
            self._is_leg_touching_kv = False

    def _follow(self, commands: Commands) -> Commands:
        for command in commands:
            self._note_command(command)
        is_waiting = self.must_plan is not None and self.must_plan.keep is not None
        if self._is_kv_held and not self._is_leg_touching_kv and not is_waiting:
            self._breach(f"held KV was dropped by {[told(each) for each in commands]}")
            self._is_kv_held = False
        if self.exchange.phase is Phase.DONE and self.plan_requests:
            self._check_end()
        return commands

    def _note_command(self, command: Command) -> None:
        match command:
            case MakePlan():
                self._note_plan_request(command)
            case OpenLeg(kind):
                self._note_open(kind)
            case ArmDeadline(deadline):
                self.deadline = deadline
            case AbortLeg():
                if self.leg is None:
                    self._breach("AbortLeg without an open leg")
                if self._is_leg_touching_kv:
                    self._is_kv_held = False  # the engine frees what an aborted request holds
                self.leg = None
                self._is_leg_touching_kv = False
            case Release():
                self.releases += 1
                if self.releases > self.plans:
                    self._breach("Release without a plan")
            case NoteStranded():
                self._is_kv_held = False
            case StartResponse():
                if self._is_started or self._answers or self.is_gone:
                    self._breach("StartResponse after an answer or after the client left")
                self._is_started = True
            case RelayAnswer() | Respond() | EndResponse() | BreakResponse():
                self._note_answer(command)

    def _note_plan_request(self, command: MakePlan) -> None:
        self.plan_requests += 1
        self.must_plan = command
        if self.releases != self.plans:
            self._breach("another plan before the last one was released")
        if command.keep is not None and not self._is_kv_held:
            self._breach("a prefill answer is used again that a decode leg may have consumed")
        if self._is_started or self._answers:
            self._breach("another plan after the client got something")

    def _note_open(self, kind: str) -> None:
        plan = self.exchange.plan
        if self.leg is not None:
            self._breach(f"OpenLeg({kind}) while the {self.leg} leg is open")
        if plan is None or self.releases == self.plans:
            self._breach(f"OpenLeg({kind}) without a plan")
        if kind == "prefill" and self._is_kv_held:
            self._breach("a prefill leg although KV is held")
        self.leg = kind
        self._is_leg_touching_kv = kind != "prefill" and plan is not None and plan.prefill is not None

    def _note_answer(self, command: Command) -> None:
        name = told(command)
        if self.is_gone:
            self._breach(f"{name} for a client that left")
        if self._answers:
            self._breach(f"{name} after {self._answers[-1]}")
        if isinstance(command, RelayAnswer | Respond) is self._is_started:
            self._breach(f"{name} {'after' if self._is_started else 'without'} StartResponse")
        self._answers.append(name)

    def _check_end(self) -> None:
        if self.releases != self.plans:
            self._breach(f"{self.plans} plans, {self.releases} releases")
        if self.leg is not None and self.exchange.phase is Phase.DONE:
            self._breach(f"the {self.leg} leg is still open at the end")
        if not self._answers and not self.is_gone:
            self._breach("the client got no answer")
