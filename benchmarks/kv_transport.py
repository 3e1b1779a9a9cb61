#!/usr/bin/env python3
"""Throughput of the KV connector's tcp transport between two processes on loopback, beside a plain socket copy.

    benchmarks/kv_transport.py --megabytes 2048 --rounds 5

Both ways carry the same payloads (one layer of a 2,000-token prompt of Llama-3.1-8B, 8 MB) from the memory of one
process into the memory of another: `sendall` and `recv_into` on a TCP socket, and the connector's own sender and
receiver with and without checksum. The connector's receiver also copies each payload from the network's buffer to its
place, as it does for a KV cache. Rounds alternate, medians are shown; one JSON line at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

import numpy as np

from command_line import at_least
from ppd_connector.courier import Courier
from ppd_connector.endpoint import Endpoint
from ppd_connector.faults import FaultSource
from ppd_connector.figures import Figures
from ppd_connector.geometry import Geometry, LayerShape
from ppd_connector.plan import Load, Save
from ppd_connector.receiver import Receiver
from ppd_connector.sender import Sender
from ppd_connector.settings import Settings
from ppd_connector.store import Store

HOST = "127.0.0.1"
TOKENS = 2048
LAYER = LayerShape(heads=8, channels=(128, 128), dtype="bfloat16")
PAYLOAD_BYTES = TOKENS * LAYER.bytes_per_token
WAYS = ("plain socket", "connector", "connector, no checksum")


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one way. `cpu_s` is of both processes together."""

    seconds: float
    cpu_s: float


class FlatStore:
    """One payload per layer in plain memory."""

    def __init__(self, layers: int) -> None:
        shapes = (LAYER,) * layers
        self.geometry = Geometry(names=tuple(map(str, range(layers))), layers=shapes, fingerprint="benchmark")
        self.block_tokens = 16
        self.memory = np.random.default_rng(0).integers(0, 255, (layers, PAYLOAD_BYTES), np.uint8)

    def read(self, layer: int, blocks: Sequence[int], first_token: int, end_token: int) -> Callable[[], memoryview]:
        payload = memoryview(self.memory[layer])
        return lambda: payload

    def write(
        self, layer: int, blocks: Sequence[int], first_token: int, end_token: int, payload: memoryview, *, at_token: int
    ) -> None:
        self.memory[layer] = np.frombuffer(payload, np.uint8)

    def flush(self) -> None:
        """Nothing is under way."""


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def settings(role: str, is_checksummed: bool) -> Settings:
    return Settings(
        role=role,  # type: ignore[arg-type]
        kv_port=1,
        send_type="PUT",
        buffer_bytes=2**32,
        timeout_s=60.0,
        is_checksummed=is_checksummed,
    )


def receive_plain(pipe: Connection, layers: int) -> None:
    memory = FlatStore(layers).memory  # touched before, as a KV cache is
    with socket.create_server((HOST, 0)) as server:
        pipe.send(server.getsockname()[1])
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
            pipe.send("ready")
            started_s = cpu_s()
            for row in memory:
                view = memoryview(row)
                while view:
                    view = view[connection.recv_into(view) :]
            pipe.send(cpu_s() - started_s)


def send_plain(pipe: Connection, layers: int) -> Measured:
    memory = FlatStore(layers).memory
    with socket.create_connection((HOST, pipe.recv())) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 2**20)
        pipe.recv()
        started_at, started_s = time.perf_counter(), cpu_s()
        for row in memory:
            connection.sendall(row)
        theirs_s = pipe.recv()
        return Measured(time.perf_counter() - started_at, cpu_s() - started_s + theirs_s)


def receive_connector(pipe: Connection, layers: int, is_checksummed: bool) -> None:
    take_transfers(pipe, FlatStore(layers), (), TOKENS, is_checksummed)


def take_transfers(pipe: Connection, store: Store, blocks: tuple[int, ...], tokens: int, is_checksummed: bool) -> None:
    """The decode engine's side: loads into `blocks` until the pipe says so."""
    receivers: list[Receiver] = []

    def courier(endpoint: Endpoint) -> Courier:
        receivers.append(
            Receiver(
                endpoint,
                store,
                settings("kv_consumer", is_checksummed),
                Figures(),
                FaultSource(""),
                rank=0,
                own_address="consumer",
                on_loaded=lambda load: None,
                on_figures=lambda request_id, figures: None,
            )
        )
        return Courier(None, receivers[0])

    endpoint = Endpoint(HOST, 0, courier)
    endpoint.start()
    pipe.send(endpoint.port)
    while (key := pipe.recv()) is not None:
        load = Load(
            request_id=key, key=key, peer=f"{HOST}:1", prompt="p", blocks=blocks, first_token=0, end_token=tokens
        )
        started_s = cpu_s()
        endpoint.call(partial(receivers[0].load, load))
        pipe.send("ready")
        while not receivers[0].results:
            time.sleep(0.0005)
        assert not receivers[0].results.popleft().failed_blocks, "the KV did not arrive"
        pipe.send(cpu_s() - started_s)
    endpoint.stop()


def send_connector(pipe: Connection, layers: int, is_checksummed: bool) -> Measured:
    measured = give_transfers(pipe, FlatStore(layers), (), TOKENS, is_checksummed)
    pipe.send(None)
    return measured


def give_transfers(
    pipe: Connection, store: Store, blocks: tuple[int, ...], tokens: int, is_checksummed: bool
) -> Measured:
    """The prefill engine's side: two transfers, of which the first finds its peer and the second is measured."""
    senders: list[Sender] = []

    def courier(endpoint: Endpoint) -> Courier:
        made = settings("kv_producer", is_checksummed)
        senders.append(Sender(endpoint, store, made, Figures(), FaultSource(""), rank=0, own_address=f"{HOST}:1"))
        return Courier(senders[0], None)

    endpoint = Endpoint(HOST, 0, courier)
    endpoint.start()
    peer = f"{HOST}:{pipe.recv()}"
    measured = Measured(0.0, 0.0)
    layers = len(store.geometry.layers)
    for key in ("0" * 32, "1" * 32):
        pipe.send(key)
        pipe.recv()
        save = Save(
            request_id=key,
            key=key,
            peer=peer,
            prompt="p",
            blocks=blocks,
            first_token=0,
            end_token=tokens,
            from_token=0,
            total_tokens=tokens,
            is_last=True,
        )
        started_at, started_s = time.perf_counter(), cpu_s()
        for layer in range(layers):
            senders[0].put(save, layer, is_last=layer == layers - 1)
        senders[0].wait_until_sent()
        theirs_s = pipe.recv()
        measured = Measured(time.perf_counter() - started_at, cpu_s() - started_s + theirs_s)
    endpoint.stop()
    return measured


def measure(way: str, layers: int) -> Measured:
    """One round; the receiver is a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    is_checksummed = way == "connector"
    if way == "plain socket":
        child = context.Process(target=receive_plain, args=(theirs, layers))
    else:
        child = context.Process(target=receive_connector, args=(theirs, layers, is_checksummed))
    child.start()
    try:
        return send_plain(ours, layers) if way == "plain socket" else send_connector(ours, layers, is_checksummed)
    finally:
        child.join(10)
        child.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=at_least(8), default=1024, help="moved per round (default 1024)")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="of each way (default 5)")
    arguments = parser.parse_args()
    layers = max(1, arguments.megabytes * 10**6 // PAYLOAD_BYTES)
    gigabytes = layers * PAYLOAD_BYTES / 1e9
    found: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for number in range(arguments.rounds):
        for way in WAYS:
            found[way].append(measure(way, layers))
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    rates = {way: statistics.median(gigabytes / each.seconds for each in rounds) for way, rounds in found.items()}
    costs = {way: statistics.median(each.cpu_s / gigabytes for each in rounds) for way, rounds in found.items()}
    print(f"{gigabytes:.2f} GB in payloads of {PAYLOAD_BYTES / 2**20:.0f} MiB, {os.cpu_count()} cores")
    print(f"{'':<24}{'GB/s':>8}{'of plain':>10}{'CPU s/GB':>10}")
    for way in WAYS:
        print(f"{way:<24}{rates[way]:>8.2f}{rates[way] / rates[WAYS[0]]:>10.2f}{costs[way]:>10.2f}")
    print(json.dumps({"gigabytes": gigabytes, "gb_per_s": rates, "cpu_s_per_gb": costs}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
