"""Child processes with a log file each, and the ports they listen on.

Owns starting a child in a process group of its own, saying why it died, and stopping exactly that group. Knows nothing
of engines or proxies.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# Below the range that the kernel hands to outgoing connections: an engine binds some of its ports half a minute after
# they were chosen.
FREE_PORTS = range(20_000, 32_000)
TAIL_LINES = 25


class ClusterError(Exception):
    """Something the person who started the cluster can mend; the message says what."""


def is_port_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(taken: set[int]) -> int:
    """Return a port that is free now and not in `taken`, and add it there."""
    while True:
        port = secrets.choice(FREE_PORTS)
        if port not in taken and is_port_free(port):
            taken.add(port)
            return port


class Child:
    """One child process, its process group and its log."""

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def death_note(self) -> str:
        """Say with which status the child ended and what it logged last."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return f"{self.name} ended with status {self._process.poll()}; the end of {self.log}:\n" + "\n".join(
            f"  {line}" for line in lines
        )

    def ask_to_stop(self) -> None:
        """Send TERM to the child; engines then end their own children."""
        if self.is_running:
            self._process.terminate()

    def stop(self, limit_s: float) -> None:
        """Wait until the child ended, killing it after `limit_s`, and end whatever is left of its group."""
        self.ask_to_stop()
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
