"""The sockets of one rank and the thread that owns them: messages in, messages out, work from the engine's thread.

Knows frames and addresses, not KV. A ROUTER listens for other engines, one DEALER per peer talks to it; payloads are
handed to ZeroMQ and taken from it without a copy. Whatever arrives, the thread goes on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import zmq

from ppd_connector import messages
from ppd_connector.route import Route

_log = logging.getLogger("ppd_connector")
_IDLE_S = 1.0
_LOG_AGAIN_AFTER_S = 60.0


class Handler(Protocol):
    """What is done with messages. Everything is called on the endpoint's thread; `now` is monotonic seconds."""

    def received(self, route: Route, message: messages.Message, payload: memoryview | None, now: float) -> None: ...

    def tick(self, now: float) -> float | None:
        """Do what is due; when to be called next at the latest."""
        ...


class Endpoint:
    """`start` binds and runs the thread; `call` gives it work from any thread; `stop` ends it, closing the sockets."""

    def __init__(self, host: str, port: int, handler_of: Callable[[Endpoint], Handler]) -> None:
        self._host = host
        self.port = port
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._dealers: dict[str, zmq.Socket[bytes]] = {}
        self._poller = zmq.Poller()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._calls: deque[Callable[[float], None]] = deque()
        self._is_stopping = False
        self._lock = threading.Lock()
        self._logged_at: dict[str, float] = {}
        self._handler = handler_of(self)
        self._thread = threading.Thread(target=self._run, name="ppd-connector", daemon=True)

    def start(self) -> None:
        """Raises zmq.ZMQError when the address cannot be bound; port 0 takes a free one."""
        try:
            self._configure(self._router)
            self._router.bind(f"tcp://{self._host}:{self.port or '*'}")
        except zmq.ZMQError:
            self._close()
            raise
        self.port = int(self._router.get_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
        self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(self._wake, zmq.POLLIN)
        self._thread.start()

    def stop(self, limit_s: float = 5.0) -> None:
        """End the thread; may be called after a `start` that failed, and again."""
        with self._lock:
            if self._is_stopping:
                return
            self._is_stopping = True
            self._wake_up()
        if self._thread.ident is not None:
            self._thread.join(limit_s)
        if not self._thread.is_alive():
            os.close(self._wake)

    def call(self, work: Callable[[float], None]) -> None:
        """Have `work(now)` done on the thread, in order; never, once it is to stop."""
        with self._lock:  # whatever thread this is, the file that wakes the endpoint's must not be closed yet
            if not self._is_stopping:
                self._calls.append(work)
                self._wake_up()

    def send(self, route: Route, message: messages.Message, payload: memoryview | None = None) -> None:
        """Only on the thread. What cannot be delivered is dropped: whoever waits for an answer has a limit."""
        frames: list[bytes | memoryview] = [messages.encode(message)]
        if payload is not None:
            frames.append(payload)
        try:
            if route.identity:
                self._router.send_multipart([route.identity, *frames], copy=False)
            else:
                self._dealer(route.address).send_multipart(frames, copy=False)
        except zmq.ZMQError as error:
            self.log_sometimes(f"send {route}", "cannot send to %s: %s", route.address or "a peer that left", error)

    def hang_up(self, address: str) -> None:
        """Only on the thread: close the connection and drop what it has not sent."""
        dealer = self._dealers.pop(address, None)
        if dealer is not None:
            self._poller.unregister(dealer)
            dealer.close(linger=0)

    def log_sometimes(self, subject: str, text: str, *values: object) -> None:
        """A warning, at most once a minute for each subject."""
        now = time.monotonic()
        if now - self._logged_at.get(subject, float("-inf")) >= _LOG_AGAIN_AFTER_S:
            if len(self._logged_at) >= 256:
                self._logged_at.clear()
            self._logged_at[subject] = now
            _log.warning(text, *values)

    def _wake_up(self) -> None:
        os.eventfd_write(self._wake, 1)

    @staticmethod
    def _configure(sock: zmq.Socket[bytes]) -> None:
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.SNDHWM, 0)  # the outbox' window is the bound
        sock.setsockopt(zmq.RCVHWM, 0)
        sock.setsockopt(zmq.SNDBUF, 4 * 2**20)
        sock.setsockopt(zmq.RCVBUF, 4 * 2**20)
        sock.setsockopt(zmq.IPV6, 1)

    def _dealer(self, address: str) -> zmq.Socket[bytes]:
        dealer = self._dealers.get(address)
        if dealer is None:
            dealer = self._context.socket(zmq.DEALER)
            self._configure(dealer)
            try:
                dealer.connect(f"tcp://{address}")
            except zmq.ZMQError:
                dealer.close(linger=0)
                raise
            self._dealers[address] = dealer
            self._poller.register(dealer, zmq.POLLIN)
        return dealer

    def _run(self) -> None:
        next_at: float | None = None
        try:
            while not self._is_stopping:
                try:
                    next_at = self._turn(next_at)
                except Exception:  # noqa: BLE001
                    _log.exception("KV connector: a fault in its own upkeep; the thread goes on")
                    next_at = time.monotonic() + _IDLE_S
        finally:
            self._close()

    def _close(self) -> None:
        for sock in (self._router, *self._dealers.values()):
            sock.close(linger=0)
        self._context.term()

    def _turn(self, next_at: float | None) -> float | None:
        wait_s = _IDLE_S if next_at is None else min(_IDLE_S, max(0.0, next_at - time.monotonic()))
        ready = dict(self._poller.poll(int(wait_s * 1000 + 0.999)))
        if self._wake in ready:
            os.eventfd_read(self._wake)
        while self._calls and not self._is_stopping:
            self._guard(self._calls.popleft(), time.monotonic())
        if self._router in ready:
            self._receive(self._router, "")
        for address, dealer in tuple(self._dealers.items()):
            if dealer in ready:
                self._receive(dealer, address)
        return self._handler.tick(time.monotonic())

    def _receive(self, sock: zmq.Socket[bytes], address: str) -> None:
        """Take what is there, but not for ever: work from the engine and deadlines have their turn."""
        for _ in range(64):
            try:
                frames = sock.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            route = Route(address=address)
            if not address:
                route = Route(identity=frames[0].bytes)
                frames = frames[1:]
            self._guard(partial(self._hear, route, frames), time.monotonic())

    def _hear(self, route: Route, frames: list[zmq.Frame], now: float) -> None:
        if not 1 <= len(frames) <= 2:
            raise ValueError(f"{len(frames)} frames; it must be a header and at most one payload")
        message = messages.decode(frames[0].buffer)
        self._handler.received(route, message, frames[1].buffer if len(frames) == 2 else None, now)

    def _guard(self, work: Callable[[float], None], now: float) -> None:
        try:
            work(now)
        except ValueError as error:
            self.log_sometimes("message", "KV connector: a message was not understood: %s", error)
        except Exception:  # noqa: BLE001
            _log.exception("KV connector: a message could not be handled; the thread goes on")
