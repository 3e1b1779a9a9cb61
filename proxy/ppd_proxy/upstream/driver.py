"""Carries out the commands of one exchange: opens and aborts legs, arms deadlines, relays bytes to the client.

Owns everything that one request has open. Decides nothing: `core/exchange.py` does. Whatever happens, no leg, timer or
reservation outlives the driver's end. Callbacks on one event loop; a task only where something has to be waited for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import MappingProxyType

from ppd_core.handoff.registry import HANDOFFS
from ppd_proxy.config.sections import Limits
from ppd_proxy.core.exchange import Exchange, Phase
from ppd_proxy.core.signals import (
    AbortLeg,
    ArmDeadline,
    BreakResponse,
    Command,
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
from ppd_proxy.upstream.deadlines import Deadlines
from ppd_proxy.upstream.leg import Leg, StreamWriter
from ppd_proxy.upstream.pool import Pool
from ppd_proxy.upstream.sides import Client, Shaper
from ppd_shell.tasks import Tasks
from ppd_wire.dialects.dialects import HandedOver
from ppd_wire.errors import EngineFailure, Failure, ProxyError

LARGE_BYTES = 1024 * 1024
_LIMITS = MappingProxyType({
    "prefill": "prefill_timeout_s",
    "first_token": "first_token_timeout_s",
    "idle": "idle_timeout_s",
    "release": "release_grace_s",
})  # fmt: skip


def _nothing(_: Exception | None) -> None: ...


class Driver:
    """`on_end` is called once, with the exception that ended it where it did not end by itself.

    What happens (`put`, `wake`) is looked at in the loop's next turn: what comes together is worked on together. While
    something has to be waited for, nothing else of this request is done.
    """

    __slots__ = (
        "_client", "_commands", "_deadline", "_deadlines", "_events", "_is_over", "_is_scheduled", "_limits", "_loop",
        "_on_end", "_params", "_pool", "_shaper", "_slot", "_tasks", "_waiting", "_writing_since", "answered",
        "exchange", "leg", "told",
    )  # fmt: skip

    def __init__(
        self, shaper: Shaper, client: Client, pool: Pool, limits: Limits, tasks: Tasks, deadlines: Deadlines,
        on_end: Callable[[Exception | None], None],
    ) -> None:  # fmt: skip
        self.exchange = Exchange(limits.retries)
        self.leg: Leg | None = None
        self.answered: Leg | None = None
        """The leg whose answer the client got, or is getting."""
        self.told: ProxyError | None = None
        """What the client was told in place of an answer, or of its end."""
        self._shaper = shaper
        self._client = client
        self._pool = pool
        self._limits = limits
        self._tasks = tasks
        self._deadlines = deadlines
        self._loop = tasks.loop
        self._on_end = on_end
        self._commands: deque[Command] = deque()
        self._events: deque[Event] = deque()
        self._params: bytes | None = None
        self._slot = 0
        self._deadline: Deadline | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._writing_since: float | None = None
        self._is_scheduled = True
        """It will look at what has happened without being woken."""
        self._is_over = False

    def start(self) -> None:
        """From the first plan on; what was put before is looked at then."""
        self._commands.extend(self.exchange.start())
        self._work()

    def put(self, event: Event) -> None:
        """An event of the exchange: from a leg, a timer, or the client's side."""
        self._events.append(event)
        self.wake()

    def put_last(self, event: Event) -> None:
        self._events.append(event)
        if not self._is_scheduled and self._waiting is None:
            self._work()

    def wake(self) -> None:
        """Something changed: an event, or bytes to relay."""
        if not self._is_scheduled and self._waiting is None:
            self._is_scheduled = True
            self._loop.call_soon(self._work)

    def close(self, error: Exception | None = None) -> None:
        """End now, wherever it is."""
        if self._is_over:
            return
        self._is_over = self._is_scheduled = True
        if self._waiting is not None:
            self._waiting.cancel()
        self._disarm()
        if self.leg is not None:
            self.leg.close()
        self._shaper.release()
        on_end, self._on_end = self._on_end, _nothing
        try:
            on_end(error)
        finally:
            self.leg = self.answered = None  # they know the driver: a cycle for each request would be the collector's

    def _work(self) -> None:
        self._is_scheduled = True
        commands, events = self._commands, self._events
        try:
            while not self._is_over:
                while commands and self._waiting is None:
                    self._carry_out(commands.popleft())
                leg, phase = self.leg, self.exchange.phase
                if self._waiting is not None:
                    break
                if phase is Phase.DONE:
                    self.close()
                elif leg is not None and leg.out and phase is Phase.STREAMING and not leg.is_over:
                    self._write(leg)  # the last bytes leave together with the end
                elif events:
                    self._hear(events.popleft(), leg)
                elif leg is not None and leg.needs_reopen:
                    self._wait(leg.reopen())
                else:
                    break
        except Exception as error:
            if self._is_over:
                raise
            self.close(error)  # whatever happens, nothing stays open
        self._is_scheduled = self._is_over

    def _hear(self, event: Event, leg: Leg | None) -> None:
        judged = self._judge(event)
        if judged is not None:
            if leg is not None and not isinstance(judged, FirstByte):
                self._tell(judged, leg)
            self._commands.extend(self.exchange.handle(judged))

    def _wait(self, awaitable: Awaitable[None] | None) -> None:
        """Nothing else is done until then; None: there is nothing to wait for."""
        if awaitable is not None:
            self._waiting = self._tasks.spawn(self._until(awaitable))

    async def _until(self, awaitable: Awaitable[None]) -> None:
        try:
            await awaitable
        except Exception as error:  # noqa: BLE001
            self._waiting = None
            self.close(error)
        except asyncio.CancelledError:
            self._waiting = None
            self.close()
            raise
        else:
            self._waiting = self._writing_since = None
            self._work()

    def _write(self, leg: Leg) -> None:
        if leg.relay is not None and leg.relay.is_done:
            self._shaper.answer_complete(leg)
        waiting = self._client.write(leg.take())
        if waiting is not None:
            writer, leg.writer = leg.writer, None  # what arrives meanwhile must not overtake it
            self._writing_since = self._loop.time()
            self._wait(self._then_write_on(waiting, leg, writer))

    async def _then_write_on(self, waiting: Awaitable[None], leg: Leg, writer: StreamWriter | None) -> None:
        await waiting
        leg.writer = writer

    def _patiently(self, write: Awaitable[None] | None) -> Awaitable[None] | None:
        """A write that may wait for the client; how long is watched by `pass_deadline`."""
        if write is not None:
            self._writing_since = self._loop.time()
        return write

    def _judge(self, event: Event) -> Event | None:
        """What a raw event means: which handoff a prefill answer carries, whether silence is the engine's."""
        leg = self.leg
        if isinstance(event, LegEnded) and leg is not None and leg.prefilled is not None:
            return self._judge_prefill(event, leg.prefilled)
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

    def _judge_prefill(self, event: LegEnded, prefilled: HandedOver) -> Event:
        plan = self.exchange.plan
        handoff = HANDOFFS[plan.handoff] if plan is not None else None
        has_kv = True
        if handoff is not None and handoff.takes_params:
            params = self._params = prefilled.params
            mistake = handoff.check_params(params) if params is not None else None
            if mistake is not None:
                return LegFailed(error=EngineFailure(mistake, reason=Failure.ENGINE_ERROR))
            has_kv = params is not None
        self._shaper.handed_over(has_kv=has_kv, prompt_tokens=prefilled.prompt_tokens)
        return LegEnded(status=event.status, has_kv=has_kv)

    def _carry_out(self, command: Command) -> None:
        leg = self.leg
        if isinstance(command, OpenLeg):
            self._wait(self._open(command.kind))
        elif isinstance(command, Release):
            self._shaper.release()
        elif isinstance(command, ArmDeadline):
            if command.deadline == "release":
                self._shaper.given_back()
            self._arm(command.deadline, getattr(self._limits, _LIMITS[command.deadline]))
        elif isinstance(command, MakePlan):
            self._commands.extendleft(reversed(self.exchange.handle(self._shaper.make_plan(command))))
        elif isinstance(command, Respond):
            self.told = command.error
            self._client.fail(command.error, self._shaper.own_headers())
        elif isinstance(command, NoteStranded):
            self._shaper.stranded()
        elif leg is not None:
            self._wait(self._pass_on(command, leg))

    def _pass_on(self, command: Command, leg: Leg) -> Awaitable[None] | None:
        """Carry out a command about the open leg's answer. What cannot be done at once is returned to be awaited."""
        if isinstance(command, RelayAnswer):
            self.answered = leg
            if len(leg.body) > LARGE_BYTES:
                return self._relay_large(command.status, leg)
            self._shaper.answer_complete(leg)
            self._answer(command.status, leg, self._shaper.response_body(leg))
        elif isinstance(command, StartResponse):
            self.answered = leg
            self._client.start(leg.status, self._shaper.response_headers(leg), leg.take())
            if self._client.writer is not None:
                leg.begin(self._client.writer)
        elif isinstance(command, EndResponse):
            self._shaper.answer_complete(leg)
            return self._patiently(self._client.end(leg.take()))
        elif isinstance(command, BreakResponse):
            self.told = command.error
            self._arm("idle", self._limits.idle_timeout_s)
            return self._patiently(self._break_off(leg, command.error))
        elif isinstance(command, AbortLeg):
            leg.abort()
        return None

    async def _relay_large(self, status: int, leg: Leg) -> None:
        """As for a small answer, with a turn of the loop after each time that all of it was read."""
        await asyncio.sleep(0)
        self._shaper.answer_complete(leg)
        await asyncio.sleep(0)
        body = self._shaper.response_body(leg)
        await asyncio.sleep(0)
        self._answer(status, leg, body)

    def _answer(self, status: int, leg: Leg, body: bytes | None) -> None:
        if body is None:
            wait = [pair for pair in leg.headers if pair[0] == b"retry-after" and status != 503]  # that has one of ours
            self._client.fail(self._shaper.unseen_error(leg, status), [*self._shaper.own_headers(), *wait])
        else:
            self._client.answer(status, self._shaper.response_headers(leg), body)

    def _break_off(self, leg: Leg, error: ProxyError) -> Awaitable[None] | None:
        if leg.relay is not None and leg.relay.error is not None:
            return self._client.end(leg.take())  # the engine's own error event is the last of it
        return self._client.break_off(leg.take(), error, leg.relay.next_number if leg.relay is not None else 0)

    def _open(self, kind: LegKind) -> Awaitable[None] | None:
        plan = self.exchange.plan
        if plan is None:
            raise RuntimeError("a leg without a plan")
        params = self._params if plan.prefill is not None and kind != "prefill" else None
        request = self._shaper.shape(kind, plan, params)
        if self.leg is not None:
            self.leg.close()
        self.leg = Leg(
            kind, self, self._loop, self._pool, request.relay, request.expected,
            dialect=request.dialect, asked=request.asked,
        )  # fmt: skip
        return self.leg.open(
            request.origin,
            request.head,
            request.body,
            is_retriable=request.is_retriable,
            is_fresh=request.is_fresh,
        )

    def _arm(self, deadline: Deadline, limit_s: float) -> None:
        self._disarm()
        self._deadline = deadline
        self._slot = self._deadlines.set(self, limit_s)

    def _disarm(self) -> None:
        """Also forgets a deadline that passed but was not looked at yet: it was not meant for what comes next."""
        if self._deadline is None:
            return
        self._deadline = None
        self._deadlines.give_up(self, self._slot)
        events = self._events
        for event in tuple(events) if events else ():
            if isinstance(event, DeadlinePassed):
                events.remove(event)

    def pass_deadline(self) -> None:
        """A client who stopped reading holds a write up, behind which no event is looked at."""
        deadline, since = self._deadline, self._writing_since
        if deadline is None:
            return
        if since is None:
            self.put(DeadlinePassed(deadline))
            return
        left_s = since + self._limits.idle_timeout_s - self._loop.time()
        if left_s <= 0:
            self.close()
        else:
            self._arm(deadline, left_s)
