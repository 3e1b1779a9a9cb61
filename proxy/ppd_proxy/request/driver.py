"""Carries out the commands of one exchange: opens and aborts legs, arms deadlines, hands the answer to the client.

Owns everything that one request has open. Decides nothing: `exchange.py` does. Knows neither handoffs nor bodies nor
answers: `serving.py` does. Whatever happens, no leg, timer or reservation outlives the driver's end. Callbacks on one
event loop; a task only where something has to be waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from ppd_proxy.request.exchange import Phase
from ppd_proxy.request.in_flight import InFlight
from ppd_proxy.request.ongoing import Ongoing
from ppd_proxy.request.sides import Client, Steps
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
    MakePlan,
    NoteStranded,
    OpenLeg,
    Patience,
    RelayAnswer,
    Release,
    Respond,
    StartResponse,
    Stopping,
)  # fmt: skip
from ppd_proxy.upstream.events import LegEnded, LegEvent, LegFailed
from ppd_proxy.upstream.leg import Leg, StreamWriter
from ppd_proxy.upstream.pool import Pool
from ppd_wire.errors import ProxyError

LARGE_BYTES = 1024 * 1024
_NO_COMMANDS: Commands = ()
_STREAMING, _DONE = Phase.STREAMING, Phase.DONE


class Driver:
    """`on_end` is called once, with the exception that ended it where it did not end by itself.

    What happens (`put`, `wake`) is looked at in the loop's next turn: what comes together is worked on together. While
    something has to be waited for, nothing else of this request is done.
    """

    __slots__ = (
        "_commands", "_deadline", "_events", "_in_flight", "_is_over", "_is_scheduled", "_loop", "_on_end", "_patience",
        "_pool", "_slot", "_steps", "_waiting", "_writing_since", "answered", "client", "leg", "ongoing", "told",
    )  # fmt: skip

    def __init__(
        self,
        ongoing: Ongoing,
        client: Client,
        steps: Steps,
        pool: Pool,
        in_flight: InFlight,
        patience: Patience,
        on_end: Callable[[Driver, Exception | None], None],
    ) -> None:
        self.ongoing = ongoing
        self.client = client
        self.leg: Leg | None = None
        self.answered: Leg | None = None
        """The leg whose answer the client got, or is getting."""
        self.told: ProxyError | None = None
        """What the client was told in place of an answer, or of its end."""
        self._steps = steps
        self._pool = pool
        self._in_flight = in_flight
        self._patience = patience
        self._on_end = on_end
        self._loop = in_flight.tasks.loop
        self._commands = _NO_COMMANDS
        """Those behind what has to be waited for."""
        self._events: list[Event] = []
        self._slot = 0
        self._deadline: Deadline | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._writing_since: float | None = None
        self._is_scheduled = True
        """It will look at what has happened without being woken."""
        self._is_over = False

    # -- what happens --

    def start(self) -> None:
        """The request was read. What happened before is looked at behind the first plan."""
        self._commands = self.ongoing.exchange.start()
        self._work()

    def put(self, event: LegEvent) -> None:
        self._put(event)

    def put_last(self, event: LegEvent) -> None:
        self._events.append(event)
        if not self._is_scheduled and self._waiting is None:
            self._work()

    def client_left(self) -> None:
        """It takes no answer any more."""
        self._put(ClientGone())

    def break_off(self, error: ProxyError) -> None:
        """The proxy ends and waits for no answer any more."""
        self._put(Stopping(error))

    def _put(self, event: Event) -> None:
        self._events.append(event)
        self.wake()

    def wake(self) -> None:
        """Something changed: an event, or bytes to relay."""
        if not self._is_scheduled and self._waiting is None:
            self._is_scheduled = True
            self._loop.call_soon(self._work)

    def pass_deadline(self) -> None:
        """A client who stopped reading holds a write up, behind which no event is looked at."""
        deadline, since = self._deadline, self._writing_since
        if deadline is None:
            return
        if since is None:
            self._put(DeadlinePassed(deadline))
            return
        left_s = since + self._patience.idle_s - self._loop.time()
        if left_s <= 0:
            self.close()
        else:
            self._arm(deadline, left_s)

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
        self._steps.release(self.ongoing)
        try:
            self._on_end(self, error)
        finally:
            self.leg = self.answered = None  # they know the driver: a cycle for each request would be the collector's

    # -- what is done about it --

    def _work(self) -> None:
        self._is_scheduled = True
        exchange = self.ongoing.exchange
        try:
            if self._commands:
                self._go_on()
            while self._waiting is None and not self._is_over:
                if exchange.phase is _DONE:
                    self.close()
                    break
                leg = self.leg
                if leg is not None and leg.out and exchange.phase is _STREAMING and not leg.is_over:
                    self._write(leg)  # the last bytes leave together with the end
                elif self._events:
                    self._hear(self._events.pop(0), leg)
                elif leg is not None and leg.needs_reopen:
                    self._wait(leg.reopen())
                else:
                    break
        except Exception as error:
            if self._is_over:
                raise
            self.close(error)  # whatever happens, nothing stays open
        self._is_scheduled = self._is_over

    def _go_on(self) -> None:
        """With the commands that were kept."""
        commands, self._commands = self._commands, _NO_COMMANDS
        self._carry_out(commands)

    def _hear(self, event: Event, leg: Leg | None) -> None:
        if isinstance(event, DeadlinePassed) and not self._is_due(event, leg):
            return
        if leg is not None and isinstance(event, LegEnded | LegFailed | DeadlinePassed):
            event = self._steps.judge(self.ongoing, leg, event)
        self._carry_out(self.ongoing.exchange.handle(event))

    def _is_due(self, event: DeadlinePassed, leg: Leg | None) -> bool:
        """Whether it is the one that was set last, and a stream's silence is the engine's."""
        if event.deadline != self._deadline:
            return False
        if event.deadline == "idle" and leg is not None and leg.last_token_at is not None:
            left_s = leg.last_token_at + self._patience.idle_s - self._loop.time()
            if left_s > 0:
                self._arm("idle", left_s)
                return False
        return True

    def _carry_out(self, commands: Commands) -> None:
        """In order. Those behind one that has to be waited for are kept."""
        for index, command in enumerate(commands, 1):
            awaitable = _HOW[type(command)](self, command)
            if awaitable is not None:
                self._wait(awaitable)
            if self._waiting is not None:
                self._commands += commands[index:]
                return

    def _make_plan(self, command: MakePlan) -> None:
        self._carry_out(self.ongoing.exchange.handle(self._steps.plan(self.ongoing, command)))

    def _open_leg(self, command: OpenLeg) -> Awaitable[None] | None:
        if self.leg is not None:
            self.leg.close()
        request = self._steps.leg(self.ongoing, command)
        leg = self.leg = Leg(command.kind, request, self, self._loop, self._pool)
        return leg.open()

    def _abort_leg(self, _: AbortLeg) -> None:
        self._must_leg().abort()

    def _release(self, _: Release) -> None:
        self._steps.release(self.ongoing)

    def _note_stranded(self, _: NoteStranded) -> None:
        self._steps.strand()

    def _respond(self, command: Respond) -> None:
        self.told = command.error
        self.client.fail(command.error, self._steps.own_headers(self.ongoing))

    def _relay_answer(self, command: RelayAnswer) -> Awaitable[None] | None:
        leg = self.answered = self._must_leg()
        if len(leg.body) > LARGE_BYTES:
            return self._relay_large(command.status, leg)
        self._steps.complete(self.ongoing, leg)
        self._answer(command.status, leg, self._steps.response_body(self.ongoing, leg))
        return None

    async def _relay_large(self, status: int, leg: Leg) -> None:
        """As for a small answer, with a turn of the loop after each time that all of it was read."""
        await asyncio.sleep(0)
        self._steps.complete(self.ongoing, leg)
        await asyncio.sleep(0)
        body = self._steps.response_body(self.ongoing, leg)
        await asyncio.sleep(0)
        self._answer(status, leg, body)

    def _answer(self, status: int, leg: Leg, body: bytes | None) -> None:
        if body is None:
            self.client.fail(*self._steps.unseen_error(self.ongoing, leg, status))
        else:
            self.client.answer(status, self._steps.response_headers(self.ongoing, leg), body)

    def _start_response(self, _: StartResponse) -> None:
        leg = self.answered = self._must_leg()
        self.client.start(leg.status, self._steps.response_headers(self.ongoing, leg), leg.take())
        writer = self.client.writer
        if writer is not None:
            leg.begin(writer)

    def _write(self, leg: Leg) -> None:
        if leg.has_all:
            self._steps.complete(self.ongoing, leg)
        waiting = self.client.write(leg.take())
        if waiting is not None:
            writer, leg.writer = leg.writer, None  # what arrives meanwhile must not overtake it
            self._writing_since = self._loop.time()
            self._wait(_then_write_on(waiting, leg, writer))

    def _end_response(self, _: EndResponse) -> Awaitable[None] | None:
        leg = self._must_leg()
        self._steps.complete(self.ongoing, leg)
        return self._patiently(self.client.end(leg.take()))

    def _break_response(self, command: BreakResponse) -> Awaitable[None] | None:
        leg = self._must_leg()
        self.told = command.error
        self._arm("idle", self._patience.idle_s)
        if leg.has_said_error:
            return self._patiently(self.client.end(leg.take()))  # the engine's own error event is the last of it
        return self._patiently(self.client.break_off(leg.take(), command.error, leg.next_number))

    def _must_leg(self) -> Leg:
        if self.leg is None:
            raise RuntimeError("a command about a leg that was not opened")
        return self.leg

    # -- waiting --

    def _wait(self, awaitable: Awaitable[None]) -> None:
        """Nothing else is done until then."""
        self._waiting = self._in_flight.tasks.spawn(self._until(awaitable))

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

    def _patiently(self, write: Awaitable[None] | None) -> Awaitable[None] | None:
        """A write that may wait for the client; how long is watched by `pass_deadline`."""
        if write is not None:
            self._writing_since = self._loop.time()
        return write

    def _arm_deadline(self, command: ArmDeadline) -> None:
        if command.deadline == "release":
            self._steps.give_back()
        self._arm(command.deadline, self._patience.of(command.deadline))

    def _arm(self, deadline: Deadline, limit_s: float) -> None:
        self._disarm()
        self._deadline = deadline
        self._slot = self._in_flight.deadlines.set(self, limit_s)

    def _disarm(self) -> None:
        """Also forgets a deadline that passed but was not looked at yet: it was not meant for what comes next."""
        if self._deadline is None:
            return
        self._deadline = None
        self._in_flight.deadlines.give_up(self, self._slot)
        if self._events:
            self._events = [event for event in self._events if not isinstance(event, DeadlinePassed)]


async def _then_write_on(waiting: Awaitable[None], leg: Leg, writer: StreamWriter | None) -> None:
    await waiting
    leg.writer = writer


_HOW: Mapping[type[Command], Callable[..., Awaitable[None] | None]] = MappingProxyType({
    MakePlan: Driver._make_plan,
    OpenLeg: Driver._open_leg,
    ArmDeadline: Driver._arm_deadline,
    AbortLeg: Driver._abort_leg,
    StartResponse: Driver._start_response,
    RelayAnswer: Driver._relay_answer,
    EndResponse: Driver._end_response,
    BreakResponse: Driver._break_response,
    Respond: Driver._respond,
    Release: Driver._release,
    NoteStranded: Driver._note_stranded,
})
