"""Engines without an engine: a real endpoint, sender and receiver over loopback, in front of a `MemoryStore`."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from tests.support.connector.memory_store import MemoryStore, Planes

from ppd_connector.courier import Courier
from ppd_connector.endpoint import Endpoint
from ppd_connector.faults import FaultSource
from ppd_connector.figures import Figures, RequestFigures
from ppd_connector.messages import Message
from ppd_connector.plan import Load, Save
from ppd_connector.receiver import LoadResult, Receiver
from ppd_connector.route import Route
from ppd_connector.sender import Sender
from ppd_connector.settings import Settings

LIMIT_S = 20.0
KEY = f"{1:032x}"
_T = TypeVar("_T")


class KvEngine:
    """One engine's worker half; the test's thread stands for the engine's. `heard` is every message that came."""

    def __init__(self, store: MemoryStore, settings: Settings) -> None:
        self.store = store
        self.figures = Figures()
        self.heard: list[Message] = []
        self.loaded: list[Load] = []
        self.request_figures: dict[str, RequestFigures] = {}
        self._courier = Courier(None, None)
        self.endpoint = Endpoint("127.0.0.1", 0, lambda _: self)
        self.endpoint.start()
        self.address = f"127.0.0.1:{self.endpoint.port}"
        source, facts = FaultSource(settings.fault), (self.endpoint, store, settings, self.figures)
        self.sender = Sender(*facts, source, rank=0, own_address=self.address)
        self.receiver = Receiver(
            *facts,
            source,
            rank=0,
            own_address=self.address,
            on_loaded=self.loaded.append,
            on_figures=self.request_figures.__setitem__,
        )
        is_producer, is_consumer = settings.is_producer, settings.is_consumer
        self._courier = Courier(self.sender if is_producer else None, self.receiver if is_consumer else None)

    # As the endpoint sees it

    def received(self, route: Route, message: Message, payload: memoryview | None, now: float) -> None:
        self.heard.append(message)
        self._courier.received(route, message, payload, now)

    def tick(self, now: float) -> float | None:
        return self._courier.tick(now)

    # As the test sees it

    def stop(self) -> None:
        self.endpoint.stop()

    def do(self, work: Callable[[float], _T]) -> _T:
        """What `work(now)` gives on the endpoint's thread."""
        answer: queue.Queue[tuple[_T] | Exception] = queue.Queue()

        def run(now: float) -> None:
            try:
                answer.put((work(now),))
            except Exception as error:  # noqa: BLE001
                answer.put(error)

        self.endpoint.call(run)
        got = answer.get(timeout=LIMIT_S)
        if isinstance(got, Exception):
            raise got
        return got[0]

    def until(self, is_true: Callable[[], object], what: str = "it") -> None:
        """Wait until something is true, asked on the endpoint's thread (which this keeps awake)."""
        ends_at = time.monotonic() + LIMIT_S
        while not self.do(lambda now: is_true()):
            assert time.monotonic() < ends_at, f"{what} did not come about: {self.left_over()}"

    def has_heard(self, kind: type[Message], count: int = 1) -> bool:
        return sum(isinstance(message, kind) for message in self.heard) >= count

    def put(self, save: Save) -> None:
        """Send all layers of a save."""
        layers = len(self.store.geometry.layers)
        for layer in range(layers):
            self.sender.put(save, layer, is_last=save.is_last and layer == layers - 1)

    def load(self, load: Load) -> None:
        self.do(lambda now: self.receiver.load(load, now))

    def result(self) -> LoadResult:
        """The next load that is over."""
        self.until(lambda: self.receiver.results, "a load's end")
        return self.receiver.results.popleft()

    def left_over(self) -> dict[str, Any]:
        """What is still held for anybody; nothing when every request is over."""
        sender, receiver = self.sender, self.receiver
        found = {
            "held bytes": receiver.held_bytes,
            "inbox": len(receiver._inbox),
            "jobs": dict(receiver._jobs),
            "untimed": dict(receiver._untimed),
            "waiting bytes": sender._outbox.waiting_bytes,
            "sendings": dict(sender._outbox.sendings),
            "lanes": dict(sender._outbox._lanes),
            "offers": dict(sender._offers),
            "under way": sender._submitted_bytes - sender._gone_bytes,
        }
        return {name: value for name, value in found.items() if value}

    def is_clean(self) -> bool:
        self.until(lambda: not self.left_over(), "an end of everything")
        return True

    def failures(self) -> dict[tuple[str, str], int]:
        """Counts by direction and reason, and everything else forgotten."""
        taken = self.figures.take() or {"failed": []}
        return {(str(direction), str(reason)): int(str(count)) for direction, _, reason, count in taken["failed"]}


def settings_of(role: str, **changes: Any) -> Settings:
    return Settings(role=role, kv_port=1, **{"timeout_s": 10.0, "lease_s": 10.0, **changes})  # type: ignore[arg-type]


def key_of(number: int) -> str:
    return f"{number:032x}"


def save_of(
    peer: str, blocks: tuple[int, ...], end: int, *, first: int = 0, from_token: int = 0, total: int | None = None,
    key: str = KEY, prompt: str = "prompt",
) -> Save:  # fmt: skip
    """Tokens `first` to `end` of a transfer up to `total` (up to `end` where it is left out)."""
    return Save(
        request_id=f"p-{key}", key=key, peer=peer, prompt=prompt, blocks=blocks, first_token=first, end_token=end,
        from_token=from_token, total_tokens=end if total is None else total, is_last=total is None or end == total,
    )  # fmt: skip


def load_of(
    peer: str, blocks: tuple[int, ...], end: int, *, first: int = 0, key: str = KEY, prompt: str = "prompt"
) -> Load:
    return Load(
        request_id=f"d-{key}", key=key, peer=peer, prompt=prompt, blocks=blocks, first_token=first, end_token=end
    )


def fill(store: MemoryStore, blocks: tuple[int, ...], kv: list[Planes], first: int = 0) -> None:
    """Compute a prompt's KV: put it into the cache."""
    for layer, planes in enumerate(kv):
        store.fill(layer, blocks, first, planes)


def holds(store: MemoryStore, blocks: tuple[int, ...], kv: list[Planes], first: int, end: int) -> bool:
    """Whether the tokens' slots have exactly this KV."""
    return all(
        np.array_equal(found, plane[:, first:end])
        for layer, planes in enumerate(kv)
        for found, plane in zip(store.tokens(layer, blocks, first, end), planes, strict=True)
    )
