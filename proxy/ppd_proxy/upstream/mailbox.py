"""Where everything that happens to one request meets: leg events, stream bytes, timers, the client leaving.

One coroutine waits; callbacks put. Single event loop, no locks.
"""

from __future__ import annotations

import asyncio
from collections import deque

from ppd_proxy.core.signals import DeadlinePassed, Event


class Mailbox:
    __slots__ = ("_loop", "_waiter", "events")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self.events: deque[Event] = deque()

    def put(self, event: Event) -> None:
        self.events.append(event)
        self.wake()

    def drop_deadlines(self) -> None:
        if self.events:
            self.events = deque(event for event in self.events if not isinstance(event, DeadlinePassed))

    def wake(self) -> None:
        """Something changed: an event, or bytes to relay."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        """Until the next `put` or `wake`. The caller has looked at everything before."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
