"""Which payload takes which NCCL communicator: one per peer and direction, made when the first payload is to move.

The sender names a communicator in `Meet` and in every `Put` that is to use it. The receiver answers a `Put` that it
has memory for with `Ready` and a number that counts up; it receives in that order, and the sender sends in that order
and only what was numbered without a gap. So the nth payload sent is the nth received whatever messages get lost: a
gap ends the communicator, and messages that name one that ended are no longer acted on. Both classes live on the
endpoint's thread.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import msgspec

from ppd_connector.channel import Channel, Device, Failure
from ppd_connector.endpoint import Endpoint
from ppd_connector.messages import Ack, Meet, Parted, Put, Ready
from ppd_connector.route import Route
from ppd_connector.store import Payload

_PartKey = tuple[str, int, int]


def _part(message: Put | Ready | Ack) -> _PartKey:
    return message.key, message.layer, message.first_token


class OnCut(Protocol):
    """Nothing that was to take the route will arrive. `is_fault`: the peer cost a wait, or NCCL failed."""

    def __call__(self, route: Route, refusal: str, now: float, *, is_fault: bool) -> None: ...


class Arrived(Protocol):
    """A payload, or why it will not come."""

    def __call__(self, route: Route, put: Put, payload: Payload | None, refusal: str | None, now: float) -> None: ...


@dataclass(slots=True, kw_only=True)
class _Sending:
    """`held` are payloads not asked for yet; `unnamed` are `Put`s that wait until the communicator has a name."""

    channel: Channel
    is_named: bool = False
    ready: int = 0
    held: dict[_PartKey, Payload] = field(default_factory=dict)
    unnamed: list[Put] = field(default_factory=list)


class Outgoing:
    """The sender's ends. `on_cut` is called after a communicator was given up, never for `cut`."""

    def __init__(
        self, endpoint: Endpoint, device: Device, *, own_address: str, timeout_s: float, on_cut: OnCut
    ) -> None:
        self._endpoint = endpoint
        self._device = device
        self._own_address = own_address
        self._timeout_s = timeout_s
        self._on_cut = on_cut
        self._ends: dict[Route, _Sending] = {}

    def launch(self, route: Route, put: Put, payload: Payload) -> None:
        """Announce a payload; it is sent when the receiver is ready for it."""
        end = self._ends.get(route) or self._open(route)
        put = msgspec.structs.replace(put, channel=end.channel.number)
        end.held[_part(put)] = payload
        if end.is_named:
            self._endpoint.send(route, put)
        else:
            end.unnamed.append(put)

    def _open(self, route: Route) -> _Sending:
        number = secrets.randbits(62) + 1  # never met before, not even by a receiver that outlived this process
        channel = Channel(
            number,
            self._device,
            is_sender=True,
            timeout_s=self._timeout_s,
            on_broken=lambda failure: self._endpoint.call(lambda now: self._broken(route, number, failure, now)),
        )
        end = self._ends[route] = _Sending(channel=channel)
        channel.start(None, lambda unique_id: self._endpoint.call(lambda now: self._named(route, number, unique_id)))
        return end

    def _named(self, route: Route, number: int, unique_id: bytes) -> None:
        end = self._end(route, number)
        if end is not None:
            end.is_named = True
            self._endpoint.send(route, Meet(sender=self._own_address, channel=number, unique_id=unique_id))
            for put in end.unnamed:
                self._endpoint.send(route, put)
            end.unnamed.clear()

    def _end(self, route: Route, number: int) -> _Sending | None:
        end = self._ends.get(route)
        return end if end is not None and end.channel.number == number else None

    def ready(self, route: Route, ready: Ready) -> None:
        end = self._end(route, ready.channel)
        if end is None:
            return
        payload = end.held.pop(_part(ready), None)
        if payload is None or ready.number != end.ready:
            end.channel.give_up("peer")  # a message got lost: the receiver waits for something else
            return
        end.ready += 1
        end.channel.push(payload, _nothing)

    def answered(self, route: Route, ack: Ack) -> None:
        """The receiver has the payload, or does not want it."""
        end = self._ends.get(route)
        if end is not None:
            end.held.pop(_part(ack), None)

    def parted(self, message: Parted, now: float) -> None:
        for route, end in tuple(self._ends.items()):
            if end.channel.number == message.channel:
                del self._ends[route]
                end.channel.give_up("peer")
                refusal = "timeout" if message.refusal == "timeout" else "peer"
                self._on_cut(route, refusal, now, is_fault=message.refusal != "gone")

    def _broken(self, route: Route, number: int, failure: Failure, now: float) -> None:
        if self._end(route, number) is not None:
            del self._ends[route]
            self._endpoint.send(route, Parted(channel=number, refusal=failure))
            self._on_cut(route, failure, now, is_fault=True)

    def cut(self, route: Route) -> None:
        """The peer does not answer: give its communicator up."""
        end = self._ends.pop(route, None)
        if end is not None:
            end.channel.give_up("timeout")

    def tick(self, now: float) -> float | None:
        times = [end.channel.watch(now) for end in tuple(self._ends.values())]
        return min((at for at in times if at is not None), default=None)

    def close(self) -> None:
        """From any thread, before the endpoint stops."""
        for end in tuple(self._ends.values()):
            end.channel.close()


@dataclass(slots=True, kw_only=True)
class _Receiving:
    """`expected` are `Put`s, and where they came from, that were answered with `Ready` and have not arrived yet."""

    channel: Channel
    route: Route
    ready: int = 0
    expected: dict[_PartKey, tuple[Route, Put]] = field(default_factory=dict)


class Incoming:
    """The receiver's ends, by sender. `on_fault` is called with senders that cost a wait, or where NCCL failed."""

    def __init__(
        self,
        endpoint: Endpoint,
        device: Device,
        *,
        timeout_s: float,
        arrived: Arrived,
        on_fault: Callable[[str, float], None],
    ) -> None:
        self._endpoint = endpoint
        self._device = device
        self._timeout_s = timeout_s
        self._arrived = arrived
        self._on_fault = on_fault
        self._ends: dict[str, _Receiving] = {}

    def meet(self, route: Route, meet: Meet, now: float) -> None:
        """Make the receiver's end; one that this sender had before is given up."""
        self._forget(meet.sender, "peer", now)
        channel = Channel(
            meet.channel,
            self._device,
            is_sender=False,
            timeout_s=self._timeout_s,
            on_broken=lambda failure: self._endpoint.call(partial(self._broken, meet, failure)),
        )
        self._ends[meet.sender] = _Receiving(channel=channel, route=route)
        channel.start(meet.unique_id)

    def expect(self, route: Route, put: Put) -> str | None:
        """Take memory for a payload and ask for it; the refusal when that cannot be. Ends in one `arrived` if not."""
        end = self._ends.get(put.sender)
        if end is None or end.channel.number != put.channel:
            self._endpoint.send(route, Parted(channel=put.channel, refusal="gone"))
            return "peer"
        if _part(put) in end.expected:
            return "mismatch"
        try:
            payload = self._device.empty(put.payload_bytes)
        except MemoryError:
            return "full"
        end.expected[_part(put)] = route, put
        end.channel.push(payload, lambda: self._endpoint.call(partial(self._take, end, put, payload)))
        ready = Ready(key=put.key, layer=put.layer, first_token=put.first_token, channel=put.channel, number=end.ready)
        end.ready += 1
        self._endpoint.send(route, ready)
        return None

    def _take(self, end: _Receiving, put: Put, payload: Payload, now: float) -> None:
        route, known = end.expected.pop(_part(put), (Route(), None))
        if known is put:
            self._arrived(route, put, payload, None, now)

    def parted(self, message: Parted, now: float) -> None:
        for sender, end in tuple(self._ends.items()):
            if end.channel.number == message.channel:
                self._forget(sender, "timeout" if message.refusal == "timeout" else "peer", now)

    def _broken(self, meet: Meet, failure: Failure, now: float) -> None:
        end = self._ends.get(meet.sender)
        if end is not None and end.channel.number == meet.channel:
            self._endpoint.send(end.route, Parted(channel=meet.channel, refusal=failure))
            self._forget(meet.sender, failure, now)
            self._on_fault(meet.sender, now)

    def _forget(self, sender: str, refusal: Failure, now: float) -> None:
        end = self._ends.pop(sender, None)
        if end is None:
            return
        end.channel.give_up(refusal)
        expected, end.expected = tuple(end.expected.values()), {}
        for route, put in expected:
            self._arrived(route, put, None, refusal, now)

    def tick(self, now: float) -> float | None:
        times = [end.channel.watch(now) for end in tuple(self._ends.values())]
        return min((at for at in times if at is not None), default=None)

    def close(self) -> None:
        """From any thread, before the endpoint stops."""
        for end in tuple(self._ends.values()):
            end.channel.close()


def _nothing() -> None:
    """A payload is out: the receiver's `Ack` says the rest."""
