"""`ppd_connector.channel.Device` inside one process: both ends of a communicator share memory, and can be made to fail.

As unkind as NCCL may be: the nth send fills the nth receive whatever they were meant for, a receive that was given up
is still filled if its end was not aborted, and calls wait for the other end for ever.
"""

from __future__ import annotations

import threading  # noqa: TID251 - what it stands in for blocks threads
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from tests.support.connector.memory_store import MemoryStore

UNFILLED = 0xEE
_STEP_S = 0.001


class LoopbackPayload:
    """Memory of a device: not a memoryview, and not what was sent until it was received."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = bytearray(data)

    @property
    def nbytes(self) -> int:
        return len(self.data)


class _Move:
    def __init__(self, pair: _Pair, payload: LoopbackPayload, *, can_fail: bool) -> None:
        self._pair = pair
        self.payload = payload
        self.is_over = False
        self.is_aborted = False
        self._can_fail = can_fail

    def is_done(self) -> bool:
        if self._can_fail and self._pair.fabric.is_failing:
            raise RuntimeError("NCCL error: unhandled system error")
        self._pair.match()
        return self.is_over


class _Pair:
    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.joined: set[int] = set()
        self.sends: list[_Move] = []
        self.receives: list[_Move] = []

    def match(self) -> None:
        with self.fabric.changed:
            if self.fabric.is_stalled:
                return
            for send, receive in zip(self.sends, self.receives, strict=False):
                if send.is_aborted or receive.is_aborted or receive.is_over:
                    continue
                size = min(send.payload.nbytes, receive.payload.nbytes)
                receive.payload.data[:size] = send.payload.data[:size]
                send.is_over = receive.is_over = True
                self.fabric.moved += 1


class Fabric:
    """What devices have in common, and the switches of a test."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.pairs: dict[bytes, _Pair] = {}
        self.moved = 0
        self.aborts = 0
        self.calls: Counter[str] = Counter()
        self.is_stalled = False
        """Nothing is moved."""
        self.is_failing = False
        """What is asked for fails."""
        self.is_deaf = False
        """Aborts do nothing."""
        self.is_joining = True
        """Communicators come about."""


class _Communicator:
    def __init__(self, pair: _Pair, rank: int) -> None:
        self._pair = pair
        self._rank = rank
        self._is_aborted = False

    def send(self, payload: LoopbackPayload) -> _Move:
        return self._begin(payload, self._pair.sends, 0)

    def receive(self, payload: LoopbackPayload) -> _Move:
        return self._begin(payload, self._pair.receives, 1)

    def _begin(self, payload: LoopbackPayload, moves: list[_Move], rank: int) -> _Move:
        assert self._rank == rank, "a communicator goes one way"
        assert not self._is_aborted, "an aborted communicator was used"
        assert all(move.is_over for move in moves), "one at a time"
        move = _Move(self._pair, payload, can_fail=rank == 0)
        with self._pair.fabric.changed:
            moves.append(move)
        return move

    def abort(self) -> None:
        fabric = self._pair.fabric
        with fabric.changed:
            fabric.aborts += 1
            fabric.changed.notify_all()
            if fabric.is_deaf:
                return
            self._is_aborted = True
            for move in self._pair.receives if self._rank else self._pair.sends:
                move.is_aborted = move.is_aborted or not move.is_over
                move.is_over = True


class LoopbackDevice:
    """One engine's. `free_bytes` is what `empty` may still give, None for as much as is asked for."""

    def __init__(self, fabric: Fabric, *, free_bytes: int | None = None) -> None:
        self._fabric = fabric
        self.free_bytes = free_bytes

    def unique_id(self) -> bytes:
        with self._fabric.changed:
            name = len(self._fabric.pairs).to_bytes(128, "big")
            self._fabric.pairs[name] = _Pair(self._fabric)
        return name

    def join(self, unique_id: bytes, rank: Literal[0, 1]) -> _Communicator:
        fabric = self._fabric
        with fabric.changed:
            fabric.calls["join"] += 1
            pair = fabric.pairs[unique_id]
            pair.joined.add(rank)
            fabric.changed.notify_all()
            while len(pair.joined) < 2 or not fabric.is_joining:
                fabric.changed.wait(_STEP_S)
        return _Communicator(pair, rank)

    def empty(self, size_bytes: int) -> LoopbackPayload:
        if self.free_bytes is not None:
            if size_bytes > self.free_bytes:
                raise MemoryError("no memory left on the loopback device")
            self.free_bytes -= size_bytes
        return LoopbackPayload(bytes([UNFILLED]) * size_bytes)


class LoopbackStore(MemoryStore):
    """A `DeviceStore`; counts the copies to host memory."""

    def __init__(self, *, seed: int = 1) -> None:
        super().__init__(seed=seed)
        self.host_copies = 0
        self.has_room = True

    def read_device(self, layer: int, blocks: Sequence[int], first_token: int, end_token: int) -> LoopbackPayload:
        if not self.has_room:
            raise MemoryError("no memory left for a copy")
        planes = self.tokens(layer, blocks, first_token, end_token)
        return LoopbackPayload(b"".join(np.ascontiguousarray(plane).tobytes() for plane in planes))

    def write_device(
        self,
        layer: int,
        blocks: Sequence[int],
        first_token: int,
        end_token: int,
        payload: LoopbackPayload,
        *,
        at_token: int,
    ) -> None:
        assert isinstance(payload, LoopbackPayload)
        self.write(layer, blocks, first_token, end_token, memoryview(bytes(payload.data)), at_token=at_token)

    def to_host(self, payload: LoopbackPayload) -> memoryview:
        self.host_copies += 1
        return memoryview(bytes(payload.data))
