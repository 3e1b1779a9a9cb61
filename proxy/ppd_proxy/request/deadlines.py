"""When requests have waited long enough: one timer of the loop for all of them.

Most deadlines are given up long before they pass, so setting one and giving it up must cost next to nothing. They are
kept in slots of time, and a slot's end is looked at for all that is left in it: up to `SLOT_S` late, never early.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

SLOT_S = 0.05


class Waiting(Protocol):
    def pass_deadline(self) -> None:
        """The deadline that was set last has passed."""


class Deadlines:
    """Each waiting object has one deadline at most: whoever sets another gives the first up before."""

    __slots__ = ("_loop", "_slots", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Waiting]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def set(self, waiting: Waiting, limit_s: float) -> int:
        """Let it pass in `limit_s` seconds. What comes back gives it up."""
        slot = int((self._loop.time() + limit_s) / SLOT_S) + 1
        waiting_then = self._slots.get(slot)
        if waiting_then is None:
            waiting_then = self._slots[slot] = set()
        waiting_then.add(waiting)
        if self._timer is None:
            self._timer = self._loop.call_later(SLOT_S, self._look)
        return slot

    def give_up(self, waiting: Waiting, slot: int) -> None:
        """Also of one that has passed."""
        waiting_then = self._slots.get(slot)
        if waiting_then is not None:
            waiting_then.discard(waiting)
            if not waiting_then:
                del self._slots[slot]

    def _look(self) -> None:
        now_slot = int(self._loop.time() / SLOT_S)
        passed = [self._slots.pop(slot) for slot in sorted(each for each in self._slots if each <= now_slot)]
        self._timer = self._loop.call_later(SLOT_S, self._look) if self._slots else None
        for waiting_then in passed:
            for waiting in tuple(waiting_then):
                waiting.pass_deadline()
