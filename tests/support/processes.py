"""Simulated engines in processes of their own, which can be stopped like a machine that hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class EngineProcess:
    """One running engine: `url`, and `stop` and `go_on` for the whole process."""

    def __init__(self, pid: int, url: str) -> None:
        self._pid = pid
        self.url = url
        self.id = url.removeprefix("http://")

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


@asynccontextmanager
async def engine_process(role: str, *flags: str) -> AsyncIterator[EngineProcess]:
    """`flags` of `ppd-proxy simulate`."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ppd_proxy.cli.main", "simulate", "--role", role, "--port", "0", *flags,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        line = (await child.stdout.readline()).decode()
        yield EngineProcess(child.pid, line.split()[-1])
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGCONT)
            child.kill()
        await child.wait()
