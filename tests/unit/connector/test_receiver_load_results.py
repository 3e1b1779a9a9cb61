"""What the engine hears about a load: it is over, holds nothing any more, and has been counted."""

from collections import deque

import pytest
from tests.support.connector.kv_engines import fill, load_of, save_of
from tests.support.connector.memory_store import MemoryStore, some_kv

TOTAL = 6
HALF = TOTAL // 2
BLOCKS = (9, 3)
BYTES = TOTAL * MemoryStore().geometry.bytes_per_token


class Witness(deque):
    """A receiver's results that know what the engine held, and had counted, when each was reported."""

    def __init__(self, engine):
        super().__init__()
        self._engine, self.seen = engine, []

    def append(self, result):
        self.seen.append((self._engine.left_over(), self._engine.failures()))
        super().append(result)


@pytest.mark.parametrize(
    ("way", "settings", "counted"),
    [
        ("done", {}, {}),
        ("refused", {"buffer_bytes": 10}, {("recv", "full"): 1}),
        ("late", {"timeout_s": 0.1}, {("recv", "timeout"): 1}),
        ("cancelled", {}, {("recv", "aborted"): 1}),
    ],
)
def test_load_that_is_over_holds_nothing_and_was_counted_before_the_engine_hears_of_it(engine, way, settings, counted):
    p, d = engine("kv_producer"), engine("kv_consumer", MemoryStore(seed=2), **{"buffer_bytes": BYTES, **settings})
    fill(p.store, BLOCKS, some_kv(TOTAL))
    results = d.receiver.results = Witness(d)
    load = load_of(p.address, BLOCKS, TOTAL)
    d.load(load)
    p.put(save_of(d.address, BLOCKS, HALF, first=0, total=TOTAL))
    if way == "done":
        p.put(save_of(d.address, BLOCKS, TOTAL, first=HALF, total=TOTAL))
    elif way == "cancelled":
        d.until(lambda: 2 * sum(entry.moved_bytes for entry in d.receiver._inbox._entries.values()) == BYTES)
        d.do(lambda now: d.receiver.release(load.request_id, load.key, load.peer))
    d.result()
    ((held, failures),) = results.seen
    held.pop("untimed", None)  # waits for the sender's timing, holds no KV
    assert (held, failures) == ({}, counted)
