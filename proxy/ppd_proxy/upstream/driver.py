"""Carries out the commands of one exchange: opens and aborts legs, arms deadlines, relays bytes to the client.

Owns everything that one request has open. Decides nothing: `core/exchange.py` does. Whatever happens, even
cancellation, no leg, timer or reservation outlives `run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from ppd_proxy.core.answer import read_prefill
from ppd_proxy.core.exchange import Exchange, Phase
from ppd_proxy.core.signals import (
    AbortLeg,
    ArmDeadline,
    BreakResponse,
    Command,
    Commands,
    Deadline,
    DeadlinePassed,
    EndResponse,
    Event,
    FirstByte,
    LegEnded,
    LegFailed,
    LegKind,
    MakePlan,
    NoteStranded,
    OpenLeg,
    RelayAnswer,
    Release,
    Respond,
    StartResponse,
)  # fmt: skip
from ppd_proxy.core.types import Reason
from ppd_proxy.errors import EngineFailure, ProxyError
from ppd_proxy.handoff.registry import HANDOFFS
from ppd_proxy.sections import Limits
from ppd_proxy.upstream.leg import Leg
from ppd_proxy.upstream.mailbox import Mailbox
from ppd_proxy.upstream.pool import Pool
from ppd_proxy.upstream.sides import Client, Shaper

LARGE_BYTES = 1024 * 1024


class Driver:
    __slots__ = (
        "_client", "_deadline", "_is_stalled", "_limits", "_loop", "_mailbox", "_params", "_pool", "_shaper", "_task",
        "_timer", "_writing_since", "answered", "exchange", "leg", "told",
    )  # fmt: skip

    def __init__(
        self, shaper: Shaper, client: Client, mailbox: Mailbox, pool: Pool, limits: Limits,
        loop: asyncio.AbstractEventLoop,
    ) -> None:  # fmt: skip
        self.exchange = Exchange(limits.retries)
        self.leg: Leg | None = None
        self.answered: Leg | None = None
        """The leg whose answer the client got, or is getting."""
        self.told: ProxyError | None = None
        """What the client was told in place of an answer, or of its end."""
        self._shaper = shaper
        self._client = client
        self._mailbox = mailbox
        self._pool = pool
        self._limits = limits
        self._loop = loop
        self._params: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: Deadline | None = None
        self._task: asyncio.Task[object] | None = None
        self._writing_since: float | None = None
        self._is_stalled = False

    async def run(self) -> None:
        """From the first plan to the last release."""
        self._task = asyncio.current_task(self._loop)
        try:
            await self._carry_out(self.exchange.start())
            while self.exchange.phase is not Phase.DONE:
                await self._step()
        except asyncio.CancelledError:
            if not self._is_stalled:
                raise
            if self._task is not None:
                self._task.uncancel()
        finally:
            self._disarm()
            if self.leg is not None:
                self.leg.close()
            self._shaper.release()

    async def _step(self) -> None:
        leg = self.leg
        if leg is not None and leg.out and not leg.is_over and self.exchange.phase is Phase.STREAMING:
            await self._write(leg)  # the last bytes leave together with the end
        elif self._mailbox.events:
            event = self._judge(self._mailbox.events.popleft())
            if event is not None:
                if not isinstance(event, FirstByte) and leg is not None:
                    self._tell(event, leg)
                await self._carry_out(self.exchange.handle(event))
        elif leg is not None and leg.needs_reopen:
            await leg.reopen()
        else:
            await self._mailbox.wait()

    async def _write(self, leg: Leg) -> None:
        if leg.relay is not None and leg.relay.is_done:
            self._shaper.answer_complete(leg)
        # What arrives while this waits must not overtake it.
        writer, leg.writer = leg.writer, None
        await self._patiently(self._client.write(leg.take()))
        leg.writer = writer

    async def _patiently(self, write: Awaitable[None]) -> None:
        """A write that may wait for the client; how long is watched by `_pass`."""
        self._writing_since = self._loop.time()
        await write
        self._writing_since = None

    def _judge(self, event: Event) -> Event | None:
        """What a raw event means: which handoff a prefill answer carries, whether silence is the engine's."""
        leg = self.leg
        if isinstance(event, LegEnded) and leg is not None and leg.kind == "prefill" and event.status < 400:
            return self._judge_prefill(event, leg)
        if isinstance(event, LegEnded) and event.status >= 400 and leg is not None and leg.kind == "decode":
            event = self._shaper.broken_by_asking(leg) or event
        elif isinstance(event, LegEnded) and leg is not None and leg.kind == "decode" and not leg.is_stream:
            event = self._shaper.two_prompts(leg) or event
        if isinstance(event, DeadlinePassed):
            if event.deadline != self._deadline:
                return None
            if event.deadline == "idle" and leg is not None and leg.last_token_at is not None:
                left_s = leg.last_token_at + self._limits.idle_timeout_s - self._loop.time()
                if left_s > 0:
                    self._arm("idle", left_s)
                    return None
        return event

    def _tell(self, event: Event, leg: Leg) -> None:
        """How a leg ended, for whoever keeps count of what engines do; a release leg's answer serves nobody."""
        plan = self.exchange.plan
        if plan is None or leg.kind == "release":
            return
        if isinstance(event, LegEnded):
            is_failure = event.status >= 500 and not event.is_client_fault
            self._shaper.leg_ended(plan, leg.kind, f"status {event.status}" if is_failure else None)
        elif isinstance(event, LegFailed):
            self._shaper.leg_failed(plan, leg.kind, event)
        elif isinstance(event, DeadlinePassed) and event.deadline != "release":
            self._shaper.leg_ended(plan, leg.kind, f"the {event.deadline} deadline passed")

    def _judge_prefill(self, event: LegEnded, leg: Leg) -> Event:
        plan = self.exchange.plan
        handoff = HANDOFFS[plan.handoff] if plan is not None else None
        takes_params = handoff is not None and handoff.takes_params
        try:
            params, prompt_tokens = read_prefill(leg.body)
        except ValueError as error:
            if takes_params:
                return LegFailed(error=EngineFailure(str(error), reason=Reason.ENGINE_ERROR))
            params = prompt_tokens = None
        has_kv = True
        if handoff is not None and takes_params:
            self._params = params
            mistake = handoff.check_params(self._params) if self._params is not None else None
            if mistake is not None:
                return LegFailed(error=EngineFailure(mistake, reason=Reason.ENGINE_ERROR))
            has_kv = self._params is not None
        self._shaper.handed_over(has_kv=has_kv, prompt_tokens=prompt_tokens)
        return LegEnded(status=event.status, has_kv=has_kv)

    async def _carry_out(self, commands: Commands) -> None:
        for command in commands:
            if isinstance(command, MakePlan):
                await self._carry_out(self.exchange.handle(self._shaper.make_plan(command)))
            else:
                waiting = self._open(command.kind) if isinstance(command, OpenLeg) else self._do(command)
                if waiting is not None:
                    await waiting

    def _do(self, command: Command) -> Awaitable[None] | None:
        """Carry out one command; what cannot be done at once is returned to be awaited."""
        leg = self.leg
        match command:
            case ArmDeadline(deadline):
                if deadline == "release":
                    self._shaper.given_back()
                self._arm(deadline, self._limit_s(deadline))
            case Release():
                self._shaper.release()
            case RelayAnswer(status) if leg is not None:
                self.answered = leg
                if len(leg.body) > LARGE_BYTES:
                    return self._relay_large(status, leg)
                self._shaper.answer_complete(leg)
                return self._answer(status, leg, self._shaper.response_body(leg))
            case StartResponse() if leg is not None:
                return self._start(leg)
            case EndResponse() if leg is not None:
                self._shaper.answer_complete(leg)
                return self._patiently(self._client.end(leg.take()))
            case Respond(error):
                self.told = error
                return self._client.fail(error, self._shaper.own_headers())
            case BreakResponse(error) if leg is not None:
                self.told = error
                self._arm("idle", self._limits.idle_timeout_s)
                return self._patiently(self._break_off(leg, error))
            case AbortLeg():
                self._abort()
            case NoteStranded():
                self._shaper.stranded()
        return None

    async def _start(self, leg: Leg) -> None:
        self.answered = leg
        await self._client.start(leg.status, self._shaper.response_headers(leg), leg.take())
        if self._client.writer is not None:
            leg.begin(self._client.writer)

    async def _relay_large(self, status: int, leg: Leg) -> None:
        """As for a small answer, with a turn of the loop after each time that all of it was read."""
        await asyncio.sleep(0)
        self._shaper.answer_complete(leg)
        await asyncio.sleep(0)
        body = self._shaper.response_body(leg)
        await asyncio.sleep(0)
        written = self._answer(status, leg, body)
        if written is not None:
            await written

    def _answer(self, status: int, leg: Leg, body: bytes | None) -> Awaitable[None] | None:
        if body is None:
            wait = [pair for pair in leg.headers if pair[0] == b"retry-after" and status != 503]  # that has one of ours
            return self._client.fail(self._shaper.unseen_error(leg, status), [*self._shaper.own_headers(), *wait])
        return self._client.answer(status, self._shaper.response_headers(leg), body)

    async def _break_off(self, leg: Leg, error: ProxyError) -> None:
        if leg.relay is not None and leg.relay.error is not None:
            await self._client.end(leg.take())  # the engine's own error event is the last of it
            return
        if leg.out:
            await self._client.write(leg.take())
        await self._client.break_off(error, leg.relay.next_number if leg.relay is not None else 0)

    def _open(self, kind: LegKind) -> Awaitable[None] | None:
        plan = self.exchange.plan
        if plan is None:
            raise RuntimeError("a leg without a plan")
        params = self._params if plan.prefill is not None and kind != "prefill" else None
        request = self._shaper.shape(kind, plan, params)
        if self.leg is not None:
            self.leg.close()
        self.leg = Leg(
            kind, self._mailbox, self._loop, self._pool, request.relay, request.expected,
            dialect=request.dialect, asked=request.asked,
        )  # fmt: skip
        return self.leg.open(
            request.origin,
            request.head,
            request.body,
            is_retriable=request.is_retriable,
            is_fresh=request.is_fresh,
        )

    def _abort(self) -> None:
        if self.leg is not None:
            self.leg.abort()

    def _limit_s(self, deadline: Deadline) -> float:
        match deadline:
            case "prefill":
                return self._limits.prefill_timeout_s
            case "first_token":
                return self._limits.first_token_timeout_s
            case "idle":
                return self._limits.idle_timeout_s
            case "release":
                return self._limits.release_grace_s

    def _arm(self, deadline: Deadline, limit_s: float) -> None:
        self._disarm()
        self._deadline = deadline
        self._timer = self._loop.call_later(limit_s, self._pass, deadline)

    def _disarm(self) -> None:
        """Also forgets a deadline that passed but was not looked at yet: it was not meant for what comes next."""
        self._deadline = None
        self._mailbox.drop_deadlines()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass(self, deadline: Deadline) -> None:
        """A deadline passed. A client who stopped reading keeps the coroutine in a write, where no event reaches it."""
        since = self._writing_since
        if since is not None and self._task is not None:
            left_s = since + self._limits.idle_timeout_s - self._loop.time()
            if left_s <= 0:
                self._is_stalled = True
                self._task.cancel()
                return
            self._arm(deadline, left_s)
            return
        self._mailbox.put(DeadlinePassed(deadline))
