"""One leg after the other on one pool, without the rest of the proxy."""

from __future__ import annotations

import asyncio
from collections import deque

from tests.support.scripted import BODY, HEAD, LIMIT_S

from ppd_proxy.upstream.events import FirstByte, LegEvent
from ppd_proxy.upstream.leg import Leg
from ppd_proxy.upstream.leg_request import LegRequest
from ppd_proxy.upstream.pool import Pool
from ppd_wire.dialects.sse import SseRelay
from ppd_wire.requests.asked import NOTHING

WHOLE = b'{"choices":[]}'
"""The least that is a whole answer."""


class Posted:
    """What a leg posts, for one coroutine that waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self.events: deque[LegEvent] = deque()

    def put(self, event: LegEvent) -> None:
        self.events.append(event)
        self.wake()

    put_last = put

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Until the next `put` or `wake`. The caller has looked at everything before."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Bench:
    """Opens legs one after the other on one pool and waits for what they post, as the driver does."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.pool = Pool(self.loop, connect_timeout_s=LIMIT_S)
        self.posted = Posted(self.loop)
        self.leg = None

    async def open(self, origin, *, is_stream=False, is_retriable=True):
        relay = SseRelay(hidden_id=b"h", public_id=b"h", drop_usage=False, asked=NOTHING) if is_stream else None
        request = LegRequest(
            origin=origin, head=HEAD, body=BODY, relay=relay, dialect="chat", is_retriable=is_retriable
        )
        self.leg = Leg("decode", request, self.posted, self.loop, self.pool)
        waiting = self.leg.open()
        if waiting is not None:
            await waiting
        return self.leg

    async def next(self):
        async with asyncio.timeout(LIMIT_S):
            while not self.posted.events:
                if self.leg.needs_reopen:
                    await self.leg.reopen()
                else:
                    await self.posted.wait()
        return self.posted.events.popleft()

    async def ask(self, origin, **options):
        await self.open(origin, **options)
        return await self.next()

    async def relayed(self):
        """What a client gets of a stream, to its end."""
        out = b""
        while True:
            event = await self.next()
            out += self.leg.take()
            if not isinstance(event, FirstByte):
                return event, out
