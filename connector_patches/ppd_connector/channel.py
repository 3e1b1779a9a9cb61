"""One end of an NCCL communicator of two, with the thread that makes it and moves payloads over it one at a time.

Knows NCCL and CUDA by the protocols below only. Every wait has a limit. NCCL's own calls have none (making a
communicator, and the first send or receive over it, wait in the library for the other end), hence a thread per
communicator and `watch`, called from another thread, which gives up on a call that does not come back. A communicator
that failed once is never used again, and memory that it may still read or write is kept until it no longer can.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from ppd_connector.store import Payload

_log = logging.getLogger("ppd_connector")
_BUSY_POLLS = 400
_BUSY_POLL_S = 0.000_05
_POLL_S = 0.001
_LINGER_POLL_S = 0.05

Failure = Literal["timeout", "peer"]
"""Why a communicator was given up: a limit passed, or the library or the other end said that it cannot go on."""


class Transfer(Protocol):
    """One send or receive that the device was told to do."""

    def is_done(self) -> bool:
        """Whether the device is through with the payload; raises when it failed. Does not wait."""
        ...


class Communicator(Protocol):
    """Payloads arrive in the order in which they were sent, each taken by the receive of the same number."""

    def send(self, payload: Payload) -> Transfer:
        """Begin; may wait for the other end. Raises RuntimeError."""
        ...

    def receive(self, payload: Payload) -> Transfer:
        """Begin filling `payload`; may wait for the other end. Raises RuntimeError."""
        ...

    def abort(self) -> None:
        """Have everything that is under way end, from any thread; nothing else is called after it."""
        ...


class Device(Protocol):
    """What makes communicators and memory. All methods may be called from any thread and raise RuntimeError."""

    def unique_id(self) -> bytes: ...

    def join(self, unique_id: bytes, rank: Literal[0, 1]) -> Communicator:
        """Make one end, 0 the sender's and 1 the receiver's; waits for the other end without a limit."""
        ...

    def empty(self, size_bytes: int) -> Payload:
        """Memory to receive into. MemoryError when there is none."""
        ...


class _Order(NamedTuple):
    payload: Payload
    on_done: Callable[[], None]


class Channel:
    """`start` it, `push` payloads, `watch` it; ends with `give_up` or `close`.

    `number` names the communicator to both ends. `on_broken` is called once, from any thread, unless `close` came
    first. Sends and receives are begun in the order of `push`, and one is over before the next begins: nothing ever
    waits on the GPU behind a kernel that waits for a peer, so peers that send to each other cannot block each other.
    """

    def __init__(
        self,
        number: int,
        device: Device,
        *,
        is_sender: bool,
        timeout_s: float,
        on_broken: Callable[[Failure], None],
    ) -> None:
        self.number = number
        self._device = device
        self._is_sender = is_sender
        self._timeout_s = timeout_s
        self._on_broken = on_broken
        self._changed = threading.Condition()
        self._orders: deque[_Order] = deque()
        self._communicator: Communicator | None = None
        self._until: float | None = None
        self._is_calling = False
        self._is_over = False
        self._in_hand: Payload | None = None

    def start(self, unique_id: bytes | None, on_named: Callable[[bytes], None] | None = None) -> None:
        """Make the communicator. Without a `unique_id` one is made and told to `on_named`, on the thread."""
        self._until = time.monotonic() + self._timeout_s
        name = f"ppd-nccl-{'send' if self._is_sender else 'receive'}"
        threading.Thread(target=self._run, args=(unique_id, on_named), name=name, daemon=True).start()

    def push(self, payload: Payload, on_done: Callable[[], None]) -> None:
        """Send, or fill, `payload` when its turn comes; `on_done` is called on the thread."""
        with self._changed:
            self._orders.append(_Order(payload, on_done))
            self._changed.notify_all()

    def watch(self, now: float) -> float | None:
        """Give up what takes longer than the limit; when to look again, None while nothing is under way."""
        until = self._until
        if until is not None and now >= until:
            self.give_up("timeout")
            return None
        return until

    def give_up(self, failure: Failure) -> None:
        """Never use the communicator again, and have the library end what is under way."""
        if self._end():
            self._on_broken(failure)
            threading.Thread(target=self._abort, name="ppd-nccl-abort", daemon=True).start()

    def close(self) -> None:
        """End the thread without a word. The communicator is left to the end of the process, as are its kernels."""
        self._end()

    def _end(self) -> bool:
        with self._changed:
            is_first, self._is_over = not self._is_over, True
            self._orders.clear()
            self._changed.notify_all()
        return is_first

    def _abort(self) -> None:
        """On a thread of its own: the library may take its time. A call about to be made must be inside the library
        before the communicator is taken from under it, so it has what is left of its limit."""
        with self._changed:
            communicator, until = self._communicator, self._until
            if until is not None:
                self._changed.wait_for(lambda: not self._is_calling, max(0.0, until - time.monotonic()))
        if communicator is not None:  # else the thread is still making it, and aborts it if that ever ends
            self._abort_now(communicator)

    def _abort_now(self, communicator: Communicator) -> None:
        try:
            communicator.abort()
        except Exception as error:  # noqa: BLE001 - wrapper and driver raise what they like; it is given up either way
            _log.warning("NCCL communicator %x could not be aborted and is left: %s", self.number, error)

    # On the channel's thread

    def _run(self, unique_id: bytes | None, on_named: Callable[[bytes], None] | None) -> None:
        try:
            if self._join(unique_id, on_named):
                while self._move():
                    pass
        except Exception as error:  # noqa: BLE001 - wrapper and driver raise what they like; it ends this channel only
            with self._changed:
                is_news, self._is_calling = not self._is_over, False
                self._changed.notify_all()
            if is_news:
                _log.warning("NCCL communicator %x failed and is given up: %s", self.number, error)
            self.give_up("peer")

    def _join(self, unique_id: bytes | None, on_named: Callable[[bytes], None] | None) -> bool:
        if unique_id is None:
            unique_id = self._device.unique_id()
            if on_named is not None and not self._is_over:
                on_named(unique_id)
        communicator = self._device.join(unique_id, 0 if self._is_sender else 1)
        with self._changed:
            self._until = None
            if not self._is_over:
                self._communicator = communicator
                return True
        self._abort_now(communicator)
        return False

    def _next(self) -> _Order | None:
        with self._changed:
            self._changed.wait_for(lambda: self._orders or self._is_over)
            if self._is_over:
                return None
            self._until = time.monotonic() + self._timeout_s
            self._is_calling = True
            return self._orders.popleft()

    def _move(self) -> bool:
        """Wait for the next order and do it; False when the channel is over. Nothing keeps a payload after that."""
        order, communicator = self._next(), self._communicator
        if order is None or communicator is None:
            return False
        self._in_hand = order.payload  # should the call fail halfway: kept as long as anything knows this channel
        transfer = communicator.send(order.payload) if self._is_sender else communicator.receive(order.payload)
        with self._changed:
            self._is_calling = False
            self._changed.notify_all()
        polls = 0
        while not (is_done := transfer.is_done()) and not self._is_over:
            self.watch(time.monotonic())
            polls += 1
            time.sleep(_BUSY_POLL_S if polls < _BUSY_POLLS else _POLL_S)
        with self._changed:
            is_good = is_done and not self._is_over
            self._until = None
            if is_done:
                self._in_hand = None
        if is_good:
            order.on_done()
        while not is_done:  # holding the payload: the GPU may still write to it, or read from it
            time.sleep(_LINGER_POLL_S)
            is_done = transfer.is_done()
        return is_good
