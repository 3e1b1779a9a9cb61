"""Taking clients in and seeing them off: the listening socket, the connections' clock, and the order of stopping."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Callable
from contextlib import suppress

from ppd_proxy.server.protocol import ClientConnection, Door
from ppd_shell.tasks import Tasks
from ppd_wire.errors import Failure, ProxyError

BACKLOG = 4096
ACCEPTED_AT_ONCE = 64
PAUSE_S = 1.0
"""How long nobody is taken in after the process ran out of what a connection needs."""
MOST_FILES = 1 << 20
FILES_OF_OUR_OWN = 64
FILES_PER_CLIENTS = (12, 5)
"""So many files for so many clients: each has its own connection and one to an engine, and at every fifth or so one to
an engine before is kept for a while. Where more are kept than that, the pool gives them up (`upstream/pool.py`)."""
LEAST_CLIENTS = 8
IDLE_ENOUGH_S = 5.0
"""Idle for so long, a client leaves for one that waits to be taken in."""
LOOKS_PER_LIMIT = 4
"""How often connections are looked at within the shortest of their limits; they outlive one by a part of it."""
MAX_LOOK_S = 1.0
POLL_S = 0.05
IDLE_WINDOW_S = 1.0
"""How long kept-alive connections may still send when nothing else is in flight at the end."""
LAST_WORDS_S = 5.0
"""How long broken-off answers have to leave."""
ABORT_S = 1.0
"""How long requests have to notice that their clients were cut off."""
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger(__name__)


class Listener:
    """`on_draining` is called when the proxy is asked to stop, before anything else happens. `ended` is set when the
    last client has left. `on_unsent` is told now and then how many bytes all clients have not taken yet."""

    def __init__(
        self,
        door: Door,
        *,
        max_clients: int,
        drain_s: float,
        grace_s: float,
        on_draining: Callable[[], None],
        on_unsent: Callable[[int], None],
    ) -> None:
        self._on_unsent = on_unsent
        self._door = door
        self._max_clients = max_clients
        self._clients = 0
        self._is_full = False
        door.on_left = self._left
        self._loop = door.loop
        self._drain_s = drain_s
        self._grace_s = grace_s
        self._on_draining = on_draining
        self._socket: socket.socket | None = None
        self._own = Tasks(door.loop)
        self._is_hurried = asyncio.Event()
        self._is_asked = asyncio.Event()
        self.ended = asyncio.Event()

    def start(self, listener: socket.socket) -> None:
        if self._is_asked.is_set():
            return  # the end came before the beginning
        self._socket = listener
        self._resume()
        self._own.spawn(self._watch(), name="client times")

    # -- taking in --

    def _resume(self) -> None:
        if self._socket is not None and self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._accept)

    def _pause(self, why: str) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            log.warning("no more clients are taken in for now: %s", why)

    def _left(self) -> None:
        self._clients -= 1
        if self._is_full:
            self._is_full = False
            self._resume()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self._socket is None:
                return
            if self._clients >= self._max_clients:
                self._is_full = True
                self._pause(f"there are {self._max_clients}; the limit of open files allows no more")
                return
            try:
                client, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _SHORTAGES:
                    continue  # this client left before it was taken in
                self._pause(str(error))
                self._loop.call_later(PAUSE_S, self._resume)
                return
            client.setblocking(False)
            self._clients += 1
            self._own.spawn(self._take_in(client))

    async def _take_in(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: ClientConnection(self._door), client)
        except OSError:
            client.close()
            self._left()

    # -- watching --

    async def _watch(self) -> None:
        limits = self._door.limits
        shortest_s = min(limits.keep_alive_s, limits.head_timeout_s, limits.body_timeout_s, limits.write_timeout_s)
        while True:
            await asyncio.sleep(min(MAX_LOOK_S, shortest_s / LOOKS_PER_LIMIT))
            now = self._loop.time()
            self._on_unsent(sum([connection.look(now) for connection in list(self._door.connections)]))
            if self._is_full:
                self._make_room(now)

    def _make_room(self, now: float) -> None:
        """Clients that only keep their connections leave for those who wait."""
        idle = [each for each in self._door.connections if each.is_idle and each.idle_s(now) >= IDLE_ENOUGH_S]
        for connection in sorted(idle, key=lambda each: -each.idle_s(now))[:ACCEPTED_AT_ONCE]:
            connection.transport.close()

    # -- seeing off --

    def ask_to_stop(self) -> None:
        """Take no new requests soon, let those in flight end; asked twice: end them now."""
        if not self._is_asked.is_set():
            self._is_asked.set()
            self._own.spawn(self._stop(), name="stop")
        else:
            self._is_hurried.set()

    async def stop(self) -> None:
        """End now what is in flight, as the second `ask_to_stop` does."""
        self._is_hurried.set()
        self.ask_to_stop()
        await self.ended.wait()
        await self._door.requests.stop()
        await self._own.stop()

    async def _stop(self) -> None:
        door = self._door
        self._on_draining()
        await self._wait(self._drain_s)
        self._accept_no_more()
        door.is_closing = True
        for connection in list(door.connections):
            connection.answer_last()
        await self._let_end()
        for connection in list(door.connections):
            connection.break_off(_stopping())
        if not await self._all_left(LAST_WORDS_S):
            for connection in list(door.connections):
                connection.transport.abort()
            await self._all_left(ABORT_S)
        self.ended.set()

    async def _all_left(self, limit_s: float) -> bool:
        """Whether every client has left, and every request's own work is done, within `limit_s`."""
        door = self._door
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while door.connections:
                    door.left.clear()
                    await door.left.wait()
                await door.requests.rest()
                return True
        return False

    async def _let_end(self) -> None:
        """Until nothing is left, or the grace is over. Kept-alive connections may send once more meanwhile."""
        ends_at = self._loop.time() + self._grace_s
        quiet_since = None
        door = self._door
        while (door.connections or door.requests.count) and not self._is_hurried.is_set():
            now = self._loop.time()
            if now >= ends_at:
                return
            if door.requests.count or not all(connection.is_idle for connection in door.connections):
                quiet_since = None
            elif quiet_since is None:
                quiet_since = now
            elif now - quiet_since >= IDLE_WINDOW_S:
                return
            await self._wait(POLL_S)

    async def _wait(self, limit_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_hurried.wait(), limit_s)

    def _accept_no_more(self) -> None:
        """Whoever is connected already is served: closing the socket would turn away what waits on it."""
        if self._socket is not None:
            self._accept()
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None


def _stopping() -> ProxyError:
    return ProxyError("the proxy is stopping", status=503, reason=Failure.STOPPING, source="proxy", is_retryable=True)


def most_clients(files: int) -> int:
    """How many clients may be connected where the process may open so many files: engines must be reached, too."""
    of_files, clients = FILES_PER_CLIENTS
    return max(LEAST_CLIENTS, (files - FILES_OF_OUR_OWN) * clients // of_files)


def open_files() -> int:
    """How many files this process may open, as a number that is no more than anybody needs."""
    return _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def allow_open_files() -> None:
    """Let this process open as many as the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _number(soft) < _number(hard):
        resource.setrlimit(resource.RLIMIT_NOFILE, (_number(hard), hard))


def _number(limit: int) -> int:
    return MOST_FILES if limit == resource.RLIM_INFINITY else min(limit, MOST_FILES)
