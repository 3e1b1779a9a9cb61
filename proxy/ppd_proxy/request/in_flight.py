"""The requests that are being served, and what they share of the loop: tasks and the timer of their deadlines."""

from __future__ import annotations

import asyncio
from typing import Protocol

from ppd_proxy.request.deadlines import Deadlines
from ppd_shell.tasks import Tasks


class Stoppable(Protocol):
    def close(self) -> None:
        """End now."""


class InFlight:
    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.deadlines = Deadlines(tasks.loop)
        self._requests: set[Stoppable] = set()
        self._none_left = asyncio.Event()

    @property
    def count(self) -> int:
        return len(self._requests) + self.tasks.count

    def add(self, request: Stoppable) -> None:
        self._requests.add(request)

    def remove(self, request: Stoppable) -> None:
        self._requests.discard(request)
        if not self._requests:
            self._none_left.set()

    async def rest(self) -> None:
        """Until all of it has ended by itself."""
        while self.count:
            self._none_left.clear()
            if self._requests:
                await self._none_left.wait()
            await self.tasks.rest()

    async def stop(self) -> None:
        """End what is still going on."""
        for request in tuple(self._requests):
            request.close()
        await self.tasks.stop()
