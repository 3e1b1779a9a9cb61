"""Engines without an engine whose payloads go over a `LoopbackDevice`; all else is the real thing."""

from __future__ import annotations

import threading  # noqa: TID251 - the endpoints' threads are to be waited for
import time

import numpy as np
from tests.support.connector.loopback_device import Fabric, LoopbackDevice, LoopbackStore
from tests.support.connector.memory_store import SHAPES

from ppd_connector.courier import Courier
from ppd_connector.endpoint import Endpoint
from ppd_connector.faults import FaultSource
from ppd_connector.figures import Figures
from ppd_connector.plan import Load, Save
from ppd_connector.receiver import Receiver
from ppd_connector.sender import Sender
from ppd_connector.settings import Settings
from ppd_connector.transport import Nccl

LIMIT_S = 10.0
TOKENS = 10
LAYERS = len(SHAPES)
FROM, TO = (3, 1, 4), (9, 2, 6)


class NcclEngine:
    """The worker's half of one engine; the test's thread stands for the engine's. `loses` drops what arrives."""

    def __init__(self, fabric: Fabric, *, port: int = 0, seed: int = 1, is_nccl: bool = True, **settings: object):
        self.settings = Settings(
            **{"role": "kv_both", "kv_port": 1, "transport": "nccl", "timeout_s": 5.0, "fence_s": 0.0,
               "is_checksummed": False, **settings}
        )  # fmt: skip
        self.store, self.figures, self.device = LoopbackStore(seed=seed), Figures(), LoopbackDevice(fabric)
        self.heard, self.failures = [], {}
        self.loses = lambda message: False
        self._courier = Courier(None, None)
        self.endpoint = Endpoint("127.0.0.1", port, lambda _: self)
        self.endpoint.start()
        self.address = f"127.0.0.1:{self.endpoint.port}"
        common = self.endpoint, self.store, self.settings, self.figures, FaultSource(self.settings.fault)
        both = {"rank": 0, "own_address": self.address, "nccl": Nccl(self.device, self.store) if is_nccl else None}
        self.sender = Sender(*common, **both)
        self.receiver = Receiver(*common, **both, on_loaded=lambda load: None, on_figures=lambda *cost: None)
        self._courier = Courier(self.sender, self.receiver)

    def received(self, route, message, payload, now):
        self.heard.append((message, payload))
        if not self.loses(message):
            self._courier.received(route, message, payload, now)

    def tick(self, now):
        return self._courier.tick(now)

    def stop(self):
        self.sender.close()
        self.receiver.close()
        self.endpoint.stop()

    def until(self, is_true, what):
        ends_at = time.monotonic() + LIMIT_S
        while not is_true():
            assert time.monotonic() < ends_at, f"{what} did not come about; heard {self.heard}"
            self.endpoint.call(lambda now: None)
            time.sleep(0.002)

    def settle(self):
        """Wait until the endpoint's thread has done what it is at."""
        done = threading.Event()
        self.endpoint.call(lambda now: done.set())
        assert done.wait(LIMIT_S)

    def send(self, peer, number, kv):
        """Compute a prompt's KV and send all of it."""
        for layer, planes in enumerate(kv):
            self.store.fill(layer, FROM, 0, planes)
        save = save_of(peer.address, number)
        for layer in range(LAYERS):
            self.sender.put(save, layer, is_last=layer == LAYERS - 1)

    def load(self, peer, number):
        """Load a prompt's KV; the blocks that failed."""
        load = Load(
            request_id=f"d{number}", key=key_of(number), peer=peer.address, prompt="p", blocks=TO, first_token=0,
            end_token=TOKENS,
        )  # fmt: skip
        self.endpoint.call(lambda now: self.receiver.load(load, now))
        self.until(lambda: self.receiver.results, "the load's end")
        return self.receiver.results.popleft().failed_blocks

    def holds(self, kv):
        return all(
            np.array_equal(found, plane)
            for layer, planes in enumerate(kv)
            for found, plane in zip(self.store.tokens(layer, TO, 0, TOKENS), planes, strict=True)
        )

    def reasons(self, direction):
        """Why transfers failed until now."""
        for row in (self.figures.take() or {"failed": []})["failed"]:
            self.failures[row[0], row[2]] = self.failures.get((row[0], row[2]), 0) + row[3]
        return {reason: count for (way, reason), count in self.failures.items() if way == direction}

    def count(self, kind):
        return sum(isinstance(message, kind) for message, _ in self.heard)


def key_of(number):
    return f"{number:032x}"


def save_of(peer, number):
    return Save(
        request_id=f"p{number}", key=key_of(number), peer=peer, prompt="p", blocks=FROM, first_token=0,
        end_token=TOKENS, from_token=0, total_tokens=TOKENS, is_last=True,
    )  # fmt: skip
