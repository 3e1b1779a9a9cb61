"""Tells the proxy every 3 s that this engine is here, in P2pNccl's own message plus what is ours."""

from __future__ import annotations

import threading

import msgspec
import zmq

PERIOD_S = 3.0


class Announcer:
    """A thread with a DEALER socket of its own; an absent proxy costs nothing, a restarted one is told again."""

    def __init__(self, proxy: str, announcement: dict[str, str | bool]) -> None:
        self._proxy = proxy
        self._payload = msgspec.msgpack.encode(announcement)
        self._identity = str(announcement["zmq_address"])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ppd-announcer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
            sock.setsockopt_string(zmq.IDENTITY, self._identity)
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.SNDHWM, 4)
            sock.connect(f"tcp://{self._proxy}")
            while not self._stopping.is_set():
                try:
                    sock.send(self._payload, zmq.NOBLOCK)
                except zmq.Again:
                    pass  # the proxy is away: a few messages wait for it, more would be no use
                self._stopping.wait(PERIOD_S)
