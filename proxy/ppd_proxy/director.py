"""One request from parsed body to finished: identify, decide, place, reserve, drive, remember, record.

Reads top to bottom; what each step does to the request's own state is in `handling.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ppd_proxy.collaborators import Call, Collaborators, ShadowSink
from ppd_proxy.core.candidate import Candidate
from ppd_proxy.core.named_model import named_model
from ppd_proxy.core.record import Record
from ppd_proxy.core.sse import READ_BYTES
from ppd_proxy.core.types import Reason
from ppd_proxy.errors import ProxyError
from ppd_proxy.handling import Handling
from ppd_proxy.offering import broken_sample, sample_of
from ppd_proxy.sections import Limits
from ppd_proxy.upstream.driver import Driver
from ppd_proxy.upstream.leg import Leg
from ppd_proxy.upstream.mailbox import Mailbox
from ppd_proxy.upstream.sides import Client

CLIENT_GONE_STATUS = 499
"""Counted, never sent: the client left before its answer began."""


class Director:
    """`wall_clock` gives seconds since 1970, for samples only."""

    def __init__(self, shared: Collaborators, limits: Limits, wall_clock: Callable[[], float]) -> None:
        self.shared = shared
        self._limits = limits
        self._wall_clock = wall_clock

    async def serve(self, call: Call, client: Client, mailbox: Mailbox) -> None:
        """Answer one request. `mailbox` is where the server puts ClientGone."""
        shared = self.shared
        handling = Handling(shared, call)
        driver = Driver(handling, client, mailbox, shared.pool, self._limits, shared.loop)
        try:
            for _ in handling.identify():
                await asyncio.sleep(0)  # a large body: others first
            await driver.run()
        except ProxyError as error:
            handling.refuse(error)
            await client.fail(error, handling.own_headers())
        finally:
            handling.close(driver.answered)
            record = handling.record
            record.path, record.model = call.path, named_model(call.body, handling.generation)
            record.is_client_gone = driver.exchange.is_client_gone or client.is_lost
            record.status = client.status or (CLIENT_GONE_STATUS if record.is_client_gone else 500)
            if driver.told is not None:
                _note(record, driver.told)
            shared.observer.finished(record)
        if handling.is_sampled and shared.shadow is not None:
            await self._offer(shared.shadow, handling, driver.answered, call.path)

    async def _offer(self, shadow: ShadowSink, handling: Handling, leg: Leg | None, path: bytes) -> None:
        record = handling.record
        broken = broken_sample(handling, path, self._wall_clock)
        if broken is not None:
            shadow.broke(broken)
            return
        if record.route not in ("pd", "direct") or record.status != 200 or record.is_client_gone:
            return  # an unsplit engine's answer, or none
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


def _note(record: Record, told: ProxyError) -> None:
    """What the client was told. A stream that the proxy itself ended is no success, whatever its head said."""
    record.error = record.error or told.message
    if told.reason == Reason.STOPPING:
        record.status, record.error = told.status, told.message
