"""One simulated engine with its sockets: start it, stop it, look inside.

async with running_engine(EngineConfig(role="decode")) as engine:
    ... engine.url, engine.requests, engine.faults.add(Fault(kind="hang")), engine.counts
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from ppd_shell.tasks import Tasks
from ppd_sim.config import EngineConfig
from ppd_sim.core import EngineCore
from ppd_sim.endpoints import Endpoints
from ppd_sim.faults import Faults
from ppd_sim.http.server import Connections
from ppd_sim.kv.announcer import announce_forever
from ppd_sim.kv.cache import PrefixCache
from ppd_sim.kv.held import HeldPrompts
from ppd_sim.state import EngineCounts, Received


def _utc_seconds() -> float:
    return datetime.now(UTC).timestamp()


class SimEngine:
    """A simulated engine. `running_engine` is the way to get a started one."""

    def __init__(self, config: EngineConfig, tasks: Tasks, wall_clock: Callable[[], float] = _utc_seconds) -> None:
        self.config = config
        self.ended = asyncio.Event()
        self.has_died = False
        self.zmq_address = ""
        self._tasks = tasks
        self._running: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self.core = EngineCore(config, spawn=self._spawn, wall_clock=wall_clock, kill=self.kill)
        self._connections = Connections(Endpoints(self.core), self._spawn, keep_alive_s=config.keep_alive_s)
        self._servers: list[asyncio.Server] = []

    @property
    def url(self) -> str:
        return f"http://{self.core.host}:{self.core.port}"

    @property
    def http_address(self) -> str:
        return f"{self.core.host}:{self.core.port}"

    @property
    def requests(self) -> list[Received]:
        return self.core.requests

    @property
    def faults(self) -> Faults:
        return self.core.faults

    @property
    def counts(self) -> EngineCounts:
        return self.core.counts

    @property
    def cache(self) -> PrefixCache:
        return self.core.cache

    @property
    def held(self) -> HeldPrompts:
        return self.core.held

    async def start(self) -> None:
        """Listen on the HTTP port and, for P2pNccl, on the KV port; start announcing."""
        config = self.config
        self.core.port = await self._listen(config.port)
        if config.kv_port is not None:
            self.zmq_address = f"{config.host}:{await self._listen(config.kv_port)}"
        if config.announce is not None:
            self._spawn(announce_forever(config, self.http_address, self.zmq_address))

    def kill(self) -> None:
        """Die at once: no port open, every connection cut, no announcement."""
        self.has_died = True
        self._close()

    async def stop(self) -> None:
        """End in order; what is running is cut off. An error inside the simulation is raised here."""
        self._close()
        await self._tasks.stop()
        await self.core.peers.close()
        if self._failures:
            raise self._failures[0]

    def _close(self) -> None:
        self.core.is_closing = True
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._connections.abort_all()
        for task in tuple(self._running):
            task.cancel()
        self.core.held.close()
        self.ended.set()

    async def _listen(self, port: int) -> int:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._connections, self.config.host, port, backlog=4096)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.spawn(work)
        self._running.add(task)
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)


@asynccontextmanager
async def running_engine(config: EngineConfig) -> AsyncIterator[SimEngine]:
    """A started engine, stopped at the end."""
    engine = SimEngine(config, Tasks(asyncio.get_running_loop()))
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()
