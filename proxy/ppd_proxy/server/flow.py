"""Who waits on one connection: a client that sends more than is wanted, or whoever writes more than it takes."""

from __future__ import annotations

import asyncio

HIGH_WATER_BYTES = 65536
"""With more of a body than this in hand, the client is not read any further."""


class Flow:
    __slots__ = ("_has_taken", "_transport", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._has_taken: asyncio.Event | None = None
        """There while somebody waits; most clients are never waited for."""
        self.read_paused = False
        self.write_paused = False
        """The client has not taken enough of what was written."""

    async def drain(self) -> None:
        """Until it has, or is gone."""
        if self.write_paused:
            if self._has_taken is None:
                self._has_taken = asyncio.Event()
            await self._has_taken.wait()

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._has_taken is not None:
            self._has_taken.set()
            self._has_taken = None
