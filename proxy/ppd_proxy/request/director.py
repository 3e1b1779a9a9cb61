"""One request from its call to its record: read, driven, noted, offered as a sample. Reads top to bottom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ppd_proxy.config.sections import Limits
from ppd_proxy.request.driver import Driver
from ppd_proxy.request.exchange import Exchange
from ppd_proxy.request.in_flight import InFlight
from ppd_proxy.request.reader import Reader
from ppd_proxy.request.record import Record
from ppd_proxy.request.remember import Looking
from ppd_proxy.request.request import Call, Request
from ppd_proxy.request.sampling import Sampling
from ppd_proxy.request.serving import Serving
from ppd_proxy.request.sides import Client
from ppd_proxy.request.signals import Patience
from ppd_proxy.upstream.pool import Pool
from ppd_wire.errors import Failure, ProxyError
from ppd_wire.headers import Headers
from ppd_wire.requests.named_model import named_model

CLIENT_GONE_STATUS = 499
"""Counted, never sent: the client left before its answer began."""


class Director:
    """`on_finished` gets every record once, when nothing of its request is left."""

    def __init__(
        self,
        reader: Reader,
        serving: Serving,
        sampling: Sampling,
        pool: Pool,
        in_flight: InFlight,
        limits: Limits,
        on_finished: Callable[[Record], None],
    ) -> None:
        self._reader = reader
        self._serving = serving
        self._sampling = sampling
        self._pool = pool
        self._in_flight = in_flight
        self._on_finished = on_finished
        self._clock = in_flight.tasks.loop.time
        self._retries = limits.retries
        self._patience = Patience(
            prefill_s=limits.prefill_timeout_s,
            first_token_s=limits.first_token_timeout_s,
            idle_s=limits.idle_timeout_s,
            release_s=limits.release_grace_s,
        )

    def serve(self, call: Call, client: Client, on_end: Callable[[Exception | None], None]) -> Driver:
        """Answer one request. What comes back is to be told that the client left, or that the proxy stops. `on_end` is
        called when nothing of the request is left, with the fault of ours that ended it, if one did."""
        ongoing = self._serving.begin(call, Exchange(self._retries), on_end)
        driver = Driver(ongoing, client, self._serving, self._pool, self._in_flight, self._patience, self._ended)
        self._in_flight.add(driver)
        try:
            read = self._reader.read(call, ongoing.record.request_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request must end
            driver.close(error)
            return driver
        if isinstance(read, Request):
            self._start(driver, read)
        else:
            self._in_flight.tasks.spawn(self._read(read, driver))
        return driver

    async def _read(self, steps: Looking[Request], driver: Driver) -> None:
        """A large body in steps: others have their turns between them."""
        try:
            step = next(steps)
            while True:
                if step is None:
                    await asyncio.sleep(0)
                    step = next(steps)
                else:
                    step = steps.send(await step)
        except StopIteration as read:
            self._start(driver, read.value)
        except Exception as error:  # noqa: BLE001
            driver.close(error)

    def _start(self, driver: Driver, request: Request) -> None:
        record = driver.ongoing.record
        driver.ongoing.request = request
        record.is_stream, record.turn = request.is_stream, request.demand.history.turn
        if request.generation is not None:
            record.choices = request.generation.choices
        driver.start()

    def _ended(self, driver: Driver, error: Exception | None) -> None:
        ongoing, client = driver.ongoing, driver.client
        self._in_flight.remove(driver)
        try:
            if isinstance(error, ProxyError):
                self._serving.refuse(ongoing, error)
                client.fail(error, self._serving.own_headers(ongoing))
                error = None
            self._finish(driver)
        except Exception as fault:  # noqa: BLE001 - whatever it is, somebody holds the request's body
            error = fault
        if error is None and ongoing.request is not None and ongoing.request.is_sampled:
            self._in_flight.tasks.spawn(self._sampling.offer(ongoing, driver.answered))
        on_end, ongoing.on_end = ongoing.on_end, _nothing
        on_end(error)

    def _finish(self, driver: Driver) -> None:
        ongoing, record, leg = driver.ongoing, driver.ongoing.record, driver.answered
        request = ongoing.request
        record.ended_at = self._clock()
        if leg is not None:
            record.decode_opened_at = leg.opened_at
            record.first_token_at, record.last_token_at = leg.first_token_at, leg.last_token_at
        record.model = named_model(ongoing.call.body, request.generation if request is not None else None)
        record.is_client_gone = ongoing.exchange.is_client_gone or driver.client.is_lost
        record.status = driver.client.status or (CLIENT_GONE_STATUS if record.is_client_gone else 500)
        if driver.told is not None:
            _note(record, driver.told)
        self._on_finished(record)

    def refuse(self, call: Call, error: ProxyError) -> Headers:
        """Count a request that is refused before anything of it was read (key, size). The answer's own headers."""
        ongoing = self._serving.begin(call, Exchange(self._retries), _nothing)
        self._serving.refuse(ongoing, error)
        ongoing.record.status, ongoing.record.ended_at = error.status, self._clock()
        self._on_finished(ongoing.record)
        return self._serving.own_headers(ongoing)


def _note(record: Record, error: ProxyError) -> None:
    """What the client was told. A stream that the proxy itself ended is no success, whatever its head said."""
    record.error = record.error or error.message
    if error.reason == Failure.STOPPING:
        record.status, record.error = error.status, error.message


def _nothing(_: Exception | None) -> None: ...
