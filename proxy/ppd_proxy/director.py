"""One request from parsed body to finished: identify, decide, place, reserve, drive, remember, record.

Reads top to bottom; what each step does to the request's own state is in `handling.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ppd_proxy.collaborators import Call, Collaborators, ShadowSink
from ppd_proxy.config.sections import Limits
from ppd_proxy.core.record import Record
from ppd_proxy.handling import Handling
from ppd_proxy.offering import broken_sample, sample_of
from ppd_proxy.upstream.deadlines import Deadlines
from ppd_proxy.upstream.driver import Driver
from ppd_proxy.upstream.leg import Inbox, Leg
from ppd_proxy.upstream.sides import Client
from ppd_shell.tasks import Tasks
from ppd_wire.answers.candidate import Candidate
from ppd_wire.dialects.sse import READ_BYTES
from ppd_wire.errors import Failure, ProxyError
from ppd_wire.json.stepwise import Steps
from ppd_wire.requests.named_model import named_model

_READ = object()
CLIENT_GONE_STATUS = 499
"""Counted, never sent: the client left before its answer began."""


class InFlight:
    """The requests that are being served, and the work beside the loop's turns that they need."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.deadlines = Deadlines(tasks.loop)
        self._drivers: set[Driver] = set()
        self._none_left = asyncio.Event()

    @property
    def count(self) -> int:
        return len(self._drivers) + self.tasks.count

    def add(self, driver: Driver) -> None:
        self._drivers.add(driver)

    def remove(self, driver: Driver) -> None:
        self._drivers.discard(driver)
        if not self._drivers:
            self._none_left.set()

    async def rest(self) -> None:
        """Until all of it has ended by itself."""
        while self.count:
            self._none_left.clear()
            if self._drivers:
                await self._none_left.wait()
            await self.tasks.rest()

    async def stop(self) -> None:
        """End what is still going on."""
        for driver in tuple(self._drivers):
            driver.close()
        await self.tasks.stop()


class Director:
    """`wall_clock` gives seconds since 1970, for samples only."""

    def __init__(
        self, shared: Collaborators, limits: Limits, in_flight: InFlight, wall_clock: Callable[[], float]
    ) -> None:
        self.shared = shared
        self._limits = limits
        self._in_flight = in_flight
        self._wall_clock = wall_clock

    def serve(self, call: Call, client: Client, on_end: Callable[[Exception | None], None]) -> Inbox:
        """Answer one request. What comes back is to be told that the client left, or that the proxy stops. `on_end` is
        called when nothing of the request is left, with the fault of ours that ended it, if one did."""
        shared, tasks = self.shared, self._in_flight.tasks
        handling = Handling(shared, call)

        def ended(error: Exception | None) -> None:
            self._in_flight.remove(driver)
            try:
                if isinstance(error, ProxyError):
                    handling.refuse(error)
                    client.fail(error, handling.own_headers())
                    error = None
                self._finish(handling, driver, client, call)
            except Exception as fault:  # noqa: BLE001 - whatever it is, somebody holds the request's body
                error = fault
            if handling.is_sampled and shared.shadow is not None and error is None:
                tasks.spawn(self._offer(shared.shadow, handling, driver.answered, call.path))
            on_end(error)

        driver = Driver(handling, client, shared.pool, self._limits, tasks, self._in_flight.deadlines, ended)
        self._in_flight.add(driver)
        steps = handling.identify()
        try:
            is_large = next(steps, _READ) is None
        except Exception as error:  # noqa: BLE001 - whatever it is, the request must end
            driver.close(error)
            return driver
        if is_large:
            tasks.spawn(self._identify(steps, driver))
        else:
            driver.start()
        return driver

    async def _identify(self, steps: Steps[None], driver: Driver) -> None:
        """A large body in steps: others have their turns between them."""
        try:
            await asyncio.sleep(0)
            for _ in steps:
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001
            driver.close(error)
        else:
            driver.start()

    def _finish(self, handling: Handling, driver: Driver, client: Client, call: Call) -> None:
        handling.close(driver.answered)
        record = handling.record
        record.path, record.model = call.path, named_model(call.body, handling.generation)
        record.is_client_gone = driver.exchange.is_client_gone or client.is_lost
        record.status = client.status or (CLIENT_GONE_STATUS if record.is_client_gone else 500)
        if driver.told is not None:
            _note(record, driver.told)
        self.shared.readings.finished(record)
        self.shared.observer.finished(record)

    async def _offer(self, shadow: ShadowSink, handling: Handling, leg: Leg | None, path: bytes) -> None:
        record = handling.record
        broken = broken_sample(handling, path, self._wall_clock)
        if broken is not None:
            shadow.broke(broken)
            return
        if record.route not in ("pd", "direct") or record.status != 200 or record.is_client_gone:
            return  # an unsplit engine's answer, or none
        if handling.generation is not None and not shadow.takes(len(handling.generation.body)):
            return  # before the answer is read, which may be long
        candidate = await self._candidate(handling, leg) if leg is not None else None
        sample = sample_of(handling, candidate, path, self._wall_clock)
        if sample is None:
            shadow.skip(record.route)
        else:
            shadow.offer(sample)

    async def _candidate(self, handling: Handling, leg: Leg) -> Candidate | None:
        """A long answer is read beside the loop: it takes as long as its tokens are many."""
        if handling.candidate_bytes(leg) > READ_BYTES:
            return await asyncio.to_thread(handling.candidate, leg)
        return handling.candidate(leg)

    def refuse(self, call: Call, error: ProxyError) -> Handling:
        """Count a request that is refused before anything of it was read (key, size)."""
        handling = Handling(self.shared, call)
        handling.refuse(error)
        handling.record.status = error.status
        handling.record.path = call.path
        handling.close(None)
        self.shared.observer.finished(handling.record)
        return handling


def _note(record: Record, error: ProxyError) -> None:
    """What the client was told. A stream that the proxy itself ended is no success, whatever its head said."""
    record.error = record.error or error.message
    if error.reason == Failure.STOPPING:
        record.status, record.error = error.status, error.message
