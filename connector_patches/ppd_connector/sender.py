"""The producer's half of transfers: what was computed goes out (PUT), or is kept until it is fetched (GET).

Runs on the endpoint's thread, but for the methods that say otherwise. Owns offers (GET) and their leases, and the
memory that the engine's thread may have under way (PUT). Knows no vLLM.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec
import xxhash

from ppd_connector.channels import Outgoing
from ppd_connector.endpoint import Endpoint
from ppd_connector.faults import FaultSource
from ppd_connector.figures import Figures
from ppd_connector.geometry import blocks_of
from ppd_connector.messages import Abort, Ack, Done, Get, Parted, Put, Ready, Sent
from ppd_connector.outbox import Fences, Outbox, Parcel, Sending
from ppd_connector.plan import Save
from ppd_connector.route import Route, rank_address
from ppd_connector.settings import Settings
from ppd_connector.store import Payload, Store
from ppd_connector.transport import Nccl, on_host

_log = logging.getLogger("ppd_connector")
_MAX_REFUSED_KEYS = 4096


@dataclass(slots=True, kw_only=True)
class Offer:
    """Finished KV in the engine's own blocks. It may be read only while the scheduler `is_held` the blocks."""

    save: Save
    kv_bytes: int
    ends_at: float
    is_held: bool = False
    is_done: bool = False
    asked: list[tuple[Route, Get]] = field(default_factory=list)


class Sender:
    """`finished` collects requests whose blocks the scheduler can free; the engine's thread takes them. Payloads take
    `nccl` where it is given."""

    def __init__(
        self,
        endpoint: Endpoint,
        store: Store,
        settings: Settings,
        figures: Figures,
        faults: FaultSource,
        *,
        rank: int,
        own_address: str,
        nccl: Nccl | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._store = store
        self._settings = settings
        self._figures = figures
        self._faults = faults
        self._rank = rank
        self._own_address = own_address
        self._nccl = nccl
        self._outgoing: Outgoing | None = None
        if nccl is not None:
            self._outgoing = Outgoing(
                endpoint, nccl.device, own_address=own_address, timeout_s=settings.timeout_s, on_cut=self._parted
            )
        self._outbox = Outbox(settings.timeout_s)
        self._fences = Fences(settings.fence_s)
        self._refused: OrderedDict[str, None] = OrderedDict()
        self._offers: dict[str, Offer] = {}
        self._condition = threading.Condition()
        self._submitted_bytes = 0
        self._gone_bytes = 0
        self._queued_bytes = 0
        self.finished: deque[str] = deque()

    @property
    def held_bytes(self) -> int:
        """KV under way or waiting for its turn (PUT), and kept to be fetched (GET)."""
        return self._outbox.waiting_bytes + self._offered_bytes

    @property
    def _offered_bytes(self) -> int:
        return sum(offer.kv_bytes for offer in tuple(self._offers.values()) if not offer.is_done)

    # On the engine's thread

    def put(self, save: Save, layer: int, *, is_last: bool) -> None:
        """Copy one layer of a save out of the cache and have it sent; waits while too much is under way.

        Raises TimeoutError when that did not end in time, MemoryError when the GPU has no room for the copy: the
        transfer was given up.
        """
        shape = self._store.geometry.layers[layer]
        size = (save.end_token - save.first_token) * shape.bytes_per_token
        with self._condition:
            has_room = self._condition.wait_for(lambda: self._has_room(size), self._settings.timeout_s)
            if has_room:
                self._submitted_bytes += size
        if not has_room:
            self._endpoint.call(lambda now: self._abort(save.key, save.peer, "timeout"))
            raise TimeoutError(f"KV of {save.key} not sent: {save.peer} takes nothing, and kv_buffer_size is used up")
        try:
            read = self._copy(save, layer)
        except MemoryError:
            with self._condition:
                self._submitted_bytes -= size
            self._endpoint.call(lambda now: self._abort(save.key, save.peer, "full"))
            raise
        put = self._header(save, layer, save.first_token, save.end_token, size)
        parcel = Parcel(route=Route(rank_address(save.peer, self._rank)), put=put, read=read)
        self._endpoint.call(lambda now: self._queue(save, parcel, now, is_last=is_last))

    def _copy(self, save: Save, layer: int) -> Callable[[], Payload]:
        if self._nccl is None:
            return self._store.read(layer, save.blocks, save.first_token, save.end_token)
        payload = self._nccl.store.read_device(layer, save.blocks, save.first_token, save.end_token)
        return lambda: payload

    def wait_until_sent(self) -> bool:
        """Wait for every acknowledgement (send type PUT), at most the timeout; whether all came or were given up."""
        with self._condition:
            return self._condition.wait_for(
                lambda: self._gone_bytes >= self._submitted_bytes, self._settings.timeout_s + 1
            )

    def _has_room(self, size: int) -> bool:
        under_way = self._submitted_bytes - self._gone_bytes
        return under_way == 0 or under_way + size <= self._settings.buffer_bytes

    # PUT

    def _header(self, save: Save, layer: int, first_token: int, end_token: int, size: int) -> Put:
        return Put(
            key=save.key,
            sender=self._own_address,
            fingerprint=self._store.geometry.fingerprint,
            prompt=save.prompt,
            layer=layer,
            first_token=first_token,
            end_token=end_token,
            from_token=save.from_token,
            total_tokens=save.total_tokens,
            payload_bytes=size,
            checksum=None,
        )

    def _queue(self, save: Save, parcel: Parcel, now: float, *, is_last: bool) -> None:
        self._queued_bytes += parcel.put.payload_bytes
        if save.key in self._refused:
            return
        if save.key not in self._outbox.sendings and not self._open(save, parcel.route, now):
            return
        sending = self._outbox.sendings[save.key]
        if sending.route != parcel.route:
            return  # another request under the same key, for another engine
        self._outbox.queue(parcel)
        sending.is_whole = sending.is_whole or is_last

    def _open(self, save: Save, route: Route, now: float) -> bool:
        if self._fences.stands(save.peer, now):
            self._give_up(save.key, save.peer, "fenced")
            self._endpoint.send(route, Abort(key=save.key, refusal="fenced"))
            return False
        self._outbox.bytes_per_s = self._faults.draw(save.key).bytes_per_s
        size = self._store.block_tokens
        moved, skipped = blocks_of(save.from_token, save.total_tokens, size), save.from_token // size
        self._outbox.open(
            Sending(key=save.key, peer=save.peer, route=route, moved_blocks=moved, skipped_blocks=skipped)
        )
        return True

    def _abort(self, key: str, peer: str, refusal: str) -> None:
        self._outbox.close(key, refusal)
        self._give_up(key, peer, refusal)
        self._endpoint.send(Route(rank_address(peer, self._rank)), Abort(key=key, refusal=refusal))

    def ended(self, key: str, peer: str) -> None:
        """The request is over. If not all of its KV was computed, the decode engine need not wait for the rest."""
        sending = self._outbox.sendings.get(key)
        if sending is not None and not sending.is_whole:
            self._abort(key, peer, "aborted")

    def _give_up(self, key: str, peer: str, refusal: str) -> None:
        self._refused[key] = None
        while len(self._refused) > _MAX_REFUSED_KEYS:
            self._refused.popitem(last=False)
        self._figures.failed("send", peer, refusal)
        self._endpoint.log_sometimes(f"send {peer} {refusal}", "KV of %s not sent to %s: %s", key, peer, refusal)

    def ready(self, route: Route, ready: Ready) -> None:
        """Raises ValueError when payloads are not sent over NCCL."""
        if self._outgoing is None:
            raise ValueError("the receiver waits on NCCL, but transport is tcp here")
        self._outgoing.ready(route, ready)

    def parted(self, message: Parted, now: float) -> None:
        if self._outgoing is not None:
            self._outgoing.parted(message, now)

    def acknowledged(self, route: Route, ack: Ack, now: float) -> None:
        if self._outgoing is not None:
            self._outgoing.answered(route, ack)
        sending = self._outbox.acknowledged(route, ack.key, ack.layer, ack.first_token, now)
        if sending is None:
            return
        self._fences.lift(sending.peer)
        offer = self._offers.get(ack.key)
        if offer is not None:
            offer.ends_at = now + self._settings.lease_s
        if ack.refusal is not None:
            self._outbox.close(ack.key, ack.refusal)
            self._give_up(ack.key, sending.peer, ack.refusal)
        elif sending.is_over:
            self._outbox.close(ack.key)
            self._endpoint.send(route, Sent(key=ack.key, seconds=sending.seconds))
            self._figures.moved(
                "send",
                sending.peer,
                kv_bytes=sending.moved_bytes,
                seconds=sending.seconds,
                blocks=sending.moved_blocks,
                skipped_blocks=sending.skipped_blocks,
            )

    # GET

    def offer(self, save: Save, now: float) -> None:
        """Keep finished KV for a consumer that asks; the oldest goes when more than the buffer size is kept."""
        known = self._offers.get(save.key)
        if known is not None and known.save.request_id != save.request_id:
            return  # two requests under one key: the first keeps it, the second's blocks go when it ends
        size = save.total_tokens * self._store.geometry.bytes_per_token
        self._offers[save.key] = Offer(save=save, kv_bytes=size, ends_at=now + self._settings.lease_s)
        for oldest in [each for each in self._offers.values() if not each.is_done]:
            if self._offered_bytes <= self._settings.buffer_bytes or oldest.save.key == save.key:
                break
            self._end(oldest, "full")

    def hold(self, request_ids: list[str], now: float) -> None:
        """The scheduler keeps these requests' blocks until they are reported in `finished`."""
        by_request = {offer.save.request_id: offer for offer in self._offers.values()}
        for request_id in request_ids:
            offer = by_request.get(request_id)
            if offer is None or offer.is_done:
                self.finished.append(request_id)
                if offer is not None:
                    del self._offers[offer.save.key]
                continue
            offer.is_held = True
            offer.ends_at = now + self._settings.lease_s
            for route, get in offer.asked:
                self._serve(route, get, offer, now)
            offer.asked.clear()

    def drop(self, request_ids: list[str]) -> None:
        """The scheduler frees these requests' blocks now: nothing is read from them any more."""
        for offer in [each for each in self._offers.values() if each.save.request_id in request_ids]:
            del self._offers[offer.save.key]
            self._outbox.close(offer.save.key, "aborted")
            for route, get in offer.asked:
                self._endpoint.send(route, Abort(key=get.key, refusal="aborted"))

    def asked(self, route: Route, get: Get, now: float) -> None:
        offer = self._offers.get(get.key)
        refusal = None
        if offer is None or offer.is_done:
            refusal = "gone"
        elif get.fingerprint != self._store.geometry.fingerprint or get.prompt != offer.save.prompt:
            refusal = "mismatch"
        elif not 0 <= get.first_token < get.end_token <= offer.save.total_tokens:
            refusal = "mismatch"
        if offer is None or refusal is not None:
            self._figures.failed("send", get.sender, refusal or "gone")
            self._endpoint.send(route, Abort(key=get.key, refusal=refusal or "gone"))
        elif offer.is_held:
            self._serve(route, get, offer, now)
        else:
            offer.asked.append((route, get))

    def _serve(self, route: Route, get: Get, offer: Offer, now: float) -> None:
        self._fences.lift(offer.save.peer)  # it asked, so it is there
        if get.key in self._outbox.sendings or not self._open(offer.save, route, now):
            return
        sending = self._outbox.sendings[get.key]
        block_tokens = self._store.block_tokens
        sending.moved_blocks = blocks_of(get.first_token, get.end_token, block_tokens)
        sending.skipped_blocks = get.first_token // block_tokens
        for layer, shape in enumerate(self._store.geometry.layers):
            size = (get.end_token - get.first_token) * shape.bytes_per_token
            put = self._header(offer.save, layer, get.first_token, get.end_token, size)
            self._outbox.queue(Parcel(route=route, put=put, read=partial(self._read, layer, get, offer)))
        sending.is_whole = True

    def _read(self, layer: int, get: Get, offer: Offer) -> Payload:
        if self._nccl is not None:
            return self._nccl.store.read_device(layer, offer.save.blocks, get.first_token, get.end_token)
        return self._store.read(layer, offer.save.blocks, get.first_token, get.end_token)()

    def done(self, message: Done) -> None:
        """The consumer has what it wants, or wants nothing."""
        offer = self._offers.get(message.key)
        if offer is not None and not offer.is_done:
            self._end(offer, None)

    def _end(self, offer: Offer, refusal: str | None) -> None:
        """An offer is over; its blocks are reported when (and as soon as) the scheduler has said that it keeps them."""
        offer.is_done = True
        sending = self._outbox.close(offer.save.key, refusal)
        if refusal is not None:
            self._figures.failed("send", offer.save.peer, refusal)
            for route in [each for each, _ in offer.asked] + ([] if sending is None else [sending.route]):
                self._endpoint.send(route, Abort(key=offer.save.key, refusal=refusal))
        if offer.is_held:
            del self._offers[offer.save.key]
            self.finished.append(offer.save.request_id)

    # Upkeep

    def tick(self, now: float) -> float | None:
        try:
            return self._tick(now)
        finally:
            self._publish()  # the engine's thread waits for it

    def _tick(self, now: float) -> float | None:
        for route in self._outbox.silent(now):
            self._cut(route, now)
        watch_at = None if self._outgoing is None else self._outgoing.tick(now)
        for parcel in self._outbox.due(now):
            self._launch(parcel, now)
        for offer in [each for each in self._offers.values() if now >= each.ends_at and not each.is_done]:
            self._end(offer, "expired")
        times = [offer.ends_at for offer in self._offers.values() if not offer.is_done]
        times += [at for at in (self._outbox.next_at(now), watch_at) if at is not None]
        return min(times, default=None)

    def _launch(self, parcel: Parcel, now: float) -> None:
        route, put = parcel.route, parcel.put
        try:
            payload = parcel.read()
        except MemoryError:  # GET over NCCL copies only now
            sending = self._outbox.acknowledged(route, put.key, put.layer, put.first_token, now)
            if sending is not None:
                self._outbox.close(put.key, "full")
                self._give_up(put.key, sending.peer, "full")
                self._endpoint.send(route, Abort(key=put.key, refusal="full"))
            return
        if self._settings.is_checksummed:
            checksum = xxhash.xxh3_64_intdigest(on_host(payload, self._nccl))
            put = msgspec.structs.replace(put, checksum=checksum)
        if isinstance(payload, memoryview):
            self._endpoint.send(route, put, payload)
        elif self._outgoing is not None:
            self._outgoing.launch(route, put, payload)

    def _cut(self, route: Route, now: float) -> None:
        for sending in self._outbox.cut(route):
            self._give_up(sending.key, sending.peer, "timeout")
            self._fences.raise_for(sending.peer, now)
        if self._outgoing is not None:
            self._outgoing.cut(route)
        if route.address:
            self._endpoint.hang_up(route.address)

    def _parted(self, route: Route, refusal: str, now: float, *, is_fault: bool) -> None:
        """The communicator is no more; the peer may well be, so it is told."""
        for sending in self._outbox.cut(route):
            self._give_up(sending.key, sending.peer, refusal)
            self._endpoint.send(route, Abort(key=sending.key, refusal=refusal))
            if is_fault:
                self._fences.raise_for(sending.peer, now)

    def close(self) -> None:
        """From the engine's thread, before the endpoint stops."""
        if self._outgoing is not None:
            self._outgoing.close()

    def _publish(self) -> None:
        gone = self._queued_bytes - self._outbox.waiting_bytes
        if gone != self._gone_bytes:
            with self._condition:
                self._gone_bytes = gone
                self._condition.notify_all()
