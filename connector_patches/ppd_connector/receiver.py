"""The consumer's half of transfers: KV that arrives is checked, kept until its request is scheduled, put into blocks.

Runs on the endpoint's thread; `results` is for the engine's thread to take from, and a load that is there holds nothing
any more and has been counted. Never a wrong block: what does not fit the engine, the request and its own checksum is a
failed load. Every load ends, at the latest a timeout after the last sign of progress. Knows no vLLM.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xxhash

from ppd_connector import faults
from ppd_connector.channels import Incoming
from ppd_connector.elements import Raw
from ppd_connector.endpoint import Endpoint
from ppd_connector.figures import Figures, RequestFigures
from ppd_connector.geometry import blocks_of
from ppd_connector.inbox import Entry, Inbox, Part
from ppd_connector.messages import PROTOCOL, Abort, Ack, Done, Get, Meet, Parted, Put, Sent
from ppd_connector.outbox import Fences
from ppd_connector.plan import Load
from ppd_connector.route import Route, rank_address
from ppd_connector.settings import Settings
from ppd_connector.store import Payload, Store
from ppd_connector.transport import Nccl, on_host

_SENT_LIMIT_S = 1.0
"""How long the figures of a finished load wait for the sender's `Sent`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """One load is over. `failed_blocks` is empty when all KV is in place, or nobody wants it any more."""

    request_id: str
    failed_blocks: tuple[int, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Job:
    load: Load
    started_at: float
    drawn: faults.Drawn
    is_whole: bool
    """Its KV goes into the blocks all at once, because a fault needs all of it."""
    copy_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Untimed:
    """A finished load whose sender has not said yet how long it took."""

    load: Load
    moved_bytes: int
    since: float
    copy_s: float
    span_s: float


class Receiver:
    """`on_loaded` is called with every load whose KV is in place (dumps); `on_figures` with what a request cost."""

    def __init__(
        self,
        endpoint: Endpoint,
        store: Store,
        settings: Settings,
        figures: Figures,
        fault_source: faults.FaultSource,
        *,
        rank: int,
        own_address: str,
        on_loaded: Callable[[Load], None],
        on_figures: Callable[[str, RequestFigures], None],
        nccl: Nccl | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._store = store
        self._settings = settings
        self._figures = figures
        self._faults = fault_source
        self._rank = rank
        self._own_address = own_address
        self._on_loaded = on_loaded
        self._on_figures = on_figures
        self._nccl = nccl
        self._incoming: Incoming | None = None
        if nccl is not None:
            self._incoming = Incoming(
                endpoint, nccl.device, timeout_s=settings.timeout_s, arrived=self._arrived, on_fault=self._fault
            )
        self._inbox = Inbox(settings.buffer_bytes)
        self._fences = Fences(settings.fence_s)
        self._jobs: dict[str, _Job] = {}
        self._untimed: dict[str, _Untimed] = {}
        self._stale: list[list[Raw]] | None = None
        self.results: deque[LoadResult] = deque()

    @property
    def held_bytes(self) -> int:
        """KV that waits for its request."""
        return self._inbox.held_bytes

    # What arrives

    def put(self, route: Route, put: Put, payload: memoryview | None, now: float) -> None:
        refusal = self._misfit(put, payload)
        if refusal is None and payload is None and self._incoming is not None:
            refusal = self._inbox.admit(put, now) or self._incoming.expect(route, put)
            if refusal is None:
                return  # `_arrived` answers
        elif refusal is None and payload is not None:
            verified, refusal = self._verified(put, payload)
            refusal = refusal or self._inbox.add(put, verified, now)
        self._answer(route, put, refusal, now)

    def _arrived(self, route: Route, put: Put, payload: Payload | None, refusal: str | None, now: float) -> None:
        """What `put` announced came over NCCL, or does not come."""
        if self._inbox.is_finished(put.key):
            refusal = "gone"
        elif payload is not None:
            payload, refusal = self._verified(put, payload)
            refusal = refusal or self._inbox.place(put, payload, now)
        self._answer(route, put, refusal, now)

    def _answer(self, route: Route, put: Put, refusal: str | None, now: float) -> None:
        self._endpoint.send(route, Ack(key=put.key, layer=put.layer, first_token=put.first_token, refusal=refusal))
        job = self._jobs.get(put.key)
        if refusal is None:
            self._fences.lift(put.sender)
            if job is not None:
                self._try_finish(job, now)
        elif job is not None:
            self._fail(job, refusal)
        elif self._inbox.get(put.key) is not None:
            self._inbox.refuse(put.key, refusal)
        elif not self._inbox.is_finished(put.key):
            self._inbox.finish(put.key)
            self._figures.failed("recv", put.sender, refusal)

    def _misfit(self, put: Put, payload: memoryview | None) -> str | None:
        if self._inbox.is_finished(put.key):
            return "gone"
        geometry = self._store.geometry
        if put.protocol != PROTOCOL or put.fingerprint != geometry.fingerprint:
            return "mismatch"
        if (put.channel == 0) != (payload is not None) or (put.channel and self._incoming is None):
            return "mismatch"
        if not 0 <= put.layer < len(geometry.layers) or not put.first_token < put.end_token <= put.total_tokens:
            return "mismatch"
        size = (put.end_token - put.first_token) * geometry.layers[put.layer].bytes_per_token
        is_whole = put.payload_bytes == size and (payload is None or len(payload) == size)
        return None if is_whole else "mismatch"

    def _verified(self, put: Put, payload: Payload) -> tuple[Payload, str | None]:
        """The payload (under a fault, another one) and whether it is what was sent."""
        entry = self._inbox.get(put.key)
        is_first = entry is None or (not entry.spans and entry.refusal is None)
        if is_first and self._faults.draw(put.key).flips_on_the_wire:
            payload = faults.flip_bit(on_host(payload, self._nccl), put.key)
        if self._settings.is_checksummed and put.checksum is not None:
            if xxhash.xxh3_64_intdigest(on_host(payload, self._nccl)) != put.checksum:
                return payload, "checksum"
        return payload, None

    # NCCL

    def meet(self, route: Route, meet: Meet, now: float) -> None:
        """Raises ValueError when payloads are not received over NCCL."""
        if self._incoming is None:
            raise ValueError(f"{meet.sender} sends over NCCL, but transport is tcp here")
        self._incoming.meet(route, meet, now)

    def parted(self, message: Parted, now: float) -> None:
        if self._incoming is not None:
            self._incoming.parted(message, now)

    def _fault(self, sender: str, now: float) -> None:
        self._fences.raise_for(sender, now)

    def close(self) -> None:
        """From the engine's thread, before the endpoint stops."""
        if self._incoming is not None:
            self._incoming.close()

    def aborted(self, abort: Abort) -> None:
        """The producer gives up: the load, now or later, need not wait."""
        job = self._jobs.get(abort.key)
        if job is not None:
            self._fail(job, abort.refusal)
        else:
            self._inbox.finish(abort.key)

    def sent(self, message: Sent) -> None:
        untimed = self._untimed.pop(message.key, None)
        entry = self._inbox.get(message.key)
        if untimed is not None:
            self._count(untimed, message.seconds + untimed.copy_s)
        elif entry is not None:
            entry.seconds = message.seconds

    # What the engine wants

    def load(self, load: Load, now: float) -> None:
        """Fill a request's blocks; ends in one `LoadResult`."""
        if load.key in self._jobs:  # two requests under one key: the first keeps it
            self._report_failure(load, "mismatch")
            return
        drawn = self._faults.draw(load.key)
        is_whole = drawn.changes_kv or self._faults.wants_stale
        job = self._jobs[load.key] = _Job(load=load, started_at=now, drawn=drawn, is_whole=is_whole)
        if self._inbox.is_finished(load.key):
            self._fail(job, "gone")
            return
        if self._try_finish(job, now):
            return
        if self._fences.stands(load.peer, now):
            self._fail(job, "fenced")
        elif self._settings.send_type == "GET":
            get = Get(
                key=load.key,
                sender=self._own_address,
                fingerprint=self._store.geometry.fingerprint,
                prompt=load.prompt,
                first_token=load.first_token,
                end_token=load.end_token,
            )
            self._endpoint.send(self._route(load.peer), get)

    def release(self, request_id: str, key: str, peer: str, reason: str = "unused") -> None:
        """The request is over, or takes nothing: whatever is here, or kept at the producer, can go."""
        job = self._jobs.get(key)
        if job is not None and job.load.request_id != request_id:
            return  # another request under the same key still waits for it
        if job is not None:
            del self._jobs[key]
        if not self._inbox.is_finished(key):
            entry = self._inbox.finish(key)
            if entry is not None and entry.refusal is not None:
                reason = entry.refusal
            if entry is not None or job is not None or reason != "unused":
                self._figures.failed("recv", peer, "aborted" if job is not None else reason)
            if self._settings.send_type == "GET":
                self._endpoint.send(self._route(peer), Done(key=key))
        if job is not None:
            self.results.append(LoadResult(request_id=request_id))

    def tick(self, now: float) -> float | None:
        timeout_s, lease_s = self._settings.timeout_s, self._settings.lease_s
        for job in [each for each in self._jobs.values() if now >= self._ends_at(each)]:
            self._fences.raise_for(job.load.peer, now)
            self._fail(job, "timeout")
            self._endpoint.hang_up(rank_address(job.load.peer, self._rank))
        for key in self._inbox.expired(now, max(lease_s, timeout_s)):
            if key not in self._jobs:
                entry = self._inbox.finish(key)
                if entry is not None:
                    self._figures.failed("recv", entry.sender, entry.refusal or "expired")
        for key in [key for key, each in self._untimed.items() if now - each.since >= _SENT_LIMIT_S]:
            untimed = self._untimed.pop(key)
            self._count(untimed, untimed.span_s)
        watch_at = None if self._incoming is None else self._incoming.tick(now)
        times = [] if watch_at is None else [watch_at]
        times += [self._ends_at(job) for job in self._jobs.values()]
        times += [each.since + _SENT_LIMIT_S for each in self._untimed.values()]
        return min(times, default=None)

    def _ends_at(self, job: _Job) -> float:
        entry = self._inbox.get(job.load.key)
        latest_at = job.started_at if entry is None else max(job.started_at, entry.latest_at)
        return latest_at + self._settings.timeout_s

    def _route(self, peer: str) -> Route:
        return Route(address=rank_address(peer, self._rank))

    # How a load ends

    def _try_finish(self, job: _Job, now: float) -> bool:
        """Fail it, finish it, or leave it waiting; whether it is over."""
        load, entry = job.load, self._inbox.get(job.load.key)
        if entry is None:
            return False
        if entry.refusal is not None:
            self._fail(job, entry.refusal)
        elif entry.prompt != load.prompt or (entry.sender, entry.total_tokens) != (load.peer, load.end_token):
            self._fail(job, "mismatch")
        elif self._settings.send_type != "GET" and entry.from_token > load.first_token:
            self._fail(job, "prefix_not_held")
        else:
            if not job.is_whole:
                self._fill(job)
            geometry, tokens = self._store.geometry, load.end_token - load.first_token
            is_plenty = entry.moved_bytes >= tokens * geometry.bytes_per_token  # the rest of the check costs more
            if not is_plenty or not entry.is_complete(len(geometry.layers), load.first_token, load.end_token):
                return False
            self._finish(job, entry, now)
        return True

    def _finish(self, job: _Job, entry: Entry, now: float) -> None:
        load = job.load
        if job.is_whole:
            self._fill(job)
        self._store.flush()
        done_at = time.monotonic()
        is_get = self._settings.send_type == "GET"
        untimed = _Untimed(
            load=load,
            moved_bytes=entry.moved_bytes,
            since=now,
            copy_s=job.copy_s,
            span_s=done_at - (job.started_at if is_get else entry.first_at),
        )
        self._close(load)
        if is_get or entry.seconds is not None:
            self._count(untimed, untimed.span_s if entry.seconds is None else entry.seconds + untimed.copy_s)
        else:
            self._untimed[load.key] = untimed
        self.results.append(LoadResult(request_id=load.request_id))
        self._on_loaded(load)

    def _fail(self, job: _Job, reason: str) -> None:
        self._close(job.load)
        self._report_failure(job.load, reason)

    def _report_failure(self, load: Load, reason: str) -> None:
        size = self._store.block_tokens
        failed = load.blocks[load.first_token // size : -(-load.end_token // size)]
        self._figures.failed("recv", load.peer, reason)
        self.results.append(LoadResult(request_id=load.request_id, failed_blocks=failed))
        self._endpoint.log_sometimes(
            f"load {load.peer} {reason}", "KV of %s not loaded from %s: %s", load.key, load.peer, reason
        )

    def _close(self, load: Load) -> None:
        del self._jobs[load.key]
        self._inbox.finish(load.key)
        if self._settings.send_type == "GET":
            self._endpoint.send(self._route(load.peer), Done(key=load.key))

    def _count(self, untimed: _Untimed, seconds: float) -> None:
        load, size = untimed.load, self._store.block_tokens
        blocks, skipped = blocks_of(load.first_token, load.end_token, size), load.first_token // size
        self._figures.moved(
            "recv", load.peer, kv_bytes=untimed.moved_bytes, seconds=seconds, blocks=blocks, skipped_blocks=skipped
        )
        self._on_figures(load.request_id, RequestFigures(untimed.moved_bytes, seconds, blocks, skipped))

    # Into the cache

    def _fill(self, job: _Job) -> None:
        """Put what has arrived, and was checked, into the request's blocks; nobody else has them yet."""
        started_at = time.monotonic()
        parts = self._inbox.take(job.load.key)
        if job.is_whole:
            self._fill_faulty(job.load, parts, job.drawn)
        else:
            self._place(job.load, parts)
        job.copy_s += time.monotonic() - started_at

    def _place(self, load: Load, parts: list[Part]) -> None:
        for part in parts:
            first, end = max(part.first_token, load.first_token), min(part.end_token, load.end_token)
            if first >= end:
                continue
            if isinstance(part.payload, memoryview):
                self._store.write(part.layer, load.blocks, first, end, part.payload, at_token=part.first_token)
            elif self._nccl is not None:
                store = self._nccl.store
                store.write_device(part.layer, load.blocks, first, end, part.payload, at_token=part.first_token)

    def _fill_faulty(self, load: Load, parts: list[Part], drawn: faults.Drawn) -> None:
        shapes = self._store.geometry.layers
        pieces = [(part, on_host(part.payload, self._nccl)) for part in parts]
        whole = [faults.whole_planes(shape, layer, pieces, load) for layer, shape in enumerate(shapes)]
        changed = faults.apply(drawn, whole, [shape.dtype for shape in shapes], self._store.block_tokens, self._stale)
        self._stale = whole
        for layer, planes in enumerate(changed):
            payload = memoryview(b"".join(np.ascontiguousarray(plane).tobytes() for plane in planes))
            first, end = load.first_token, load.end_token
            self._store.write(layer, load.blocks, first, end, payload, at_token=first)
