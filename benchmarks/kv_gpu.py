#!/usr/bin/env python3
"""The KV connector's way from one GPU cache into another over its tcp transport: is it right, and what does each step
cost?

    PYTHONPATH=connector_patches:benchmarks python benchmarks/kv_gpu.py --layers 32 --tokens 2048

Needs a Python with torch, pyzmq, msgspec and xxhash; no vLLM. Two processes share the GPU, each with a paged cache of
Llama-3.1-8B's shape (8 KV heads of 128, bf16 unless told otherwise), laid out as vLLM 0.30 to 0.32 does on GPUs. A
prompt whose last block is half full goes from scattered blocks of one into other blocks of the other; every element is
then compared. Steps: gathering its tokens from their blocks on the GPU, copying them to pinned host memory, both
together as the connector does it while the GPU computes, and the reverse; and all of it, two processes, end to end.
Medians; one JSON line at the end. `--device cpu` runs the same without a GPU, to try the script.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from command_line import at_least
from kv_transport import Measured, give_transfers, take_transfers
from ppd_connector.kv_cache import KvCache

HEADS, SIZE, BLOCK = 8, 128, 16
CHECKSUMS = {"end to end, checksum": True, "end to end, no checksum": False}


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt's KV. `layout` is the order of an attention backend's memory: NHD or HND."""

    device: str
    dtype: str
    layout: str
    layers: int
    tokens: int

    @property
    def count(self) -> int:
        return -(-self.tokens // BLOCK)

    @property
    def nbytes(self) -> int:
        return self.layers * self.tokens * 2 * HEADS * SIZE * getattr(torch, self.dtype).itemsize

    def blocks(self, seed: int) -> tuple[int, ...]:
        """Scattered over a cache with twice the room."""
        order = torch.randperm(2 * self.count, generator=torch.Generator().manual_seed(seed))
        return tuple(order[: self.count].tolist())

    def store(self, seed: int | None) -> KvCache:
        """Random content, the same for the same seed in any process; None for zeros."""
        dtype = getattr(torch, self.dtype)
        caches = {}
        for layer in range(self.layers):
            shape = (2 * self.count, BLOCK, HEADS, 2 * SIZE)
            if self.layout == "HND":
                shape = (2 * self.count, HEADS, BLOCK, 2 * SIZE)
            cache = torch.zeros(shape, dtype=dtype, device=self.device)
            if seed is not None:
                torch.manual_seed(1000 * seed + layer)
                cache.copy_(torch.randint(-99, 99, shape, device=self.device))
            caches[f"layer {layer}"] = cache if self.layout == "HND" else cache.transpose(1, 2)
        spec = FullAttentionSpec()
        specs = dict.fromkeys(caches, spec)
        return KvCache(caches, specs, block_tokens=BLOCK, cpu_isa=None, model={}, rank=0, ranks=1)


@dataclass(frozen=True, slots=True)
class FullAttentionSpec:
    """What the connector reads of vLLM's class of that name."""

    num_kv_heads: int = HEADS
    head_size: int = SIZE
    head_size_v: int = SIZE


def synchronize(job: Job) -> None:
    if job.device == "cuda":
        torch.cuda.synchronize()


def receive(pipe: Connection, job: Job, is_checksummed: bool) -> None:
    """Take the transfers, then compare every element with what the sender's seed gives."""
    store, blocks = job.store(None), job.blocks(2)
    take_transfers(pipe, store, blocks, job.tokens, is_checksummed)
    sent, sent_blocks = job.store(1), job.blocks(1)
    differing = 0
    for layer in range(job.layers):
        got, expected = (
            torch.frombuffer(bytearray(cache.read(layer, table, 0, job.tokens)()), dtype=torch.uint8)
            for cache, table in ((store, blocks), (sent, sent_blocks))
        )
        assert expected.any()
        differing += int((got != expected).sum())
    pipe.send(differing)


def end_to_end(job: Job, is_checksummed: bool) -> Measured:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=receive, args=(theirs, job, is_checksummed))
    child.start()
    try:
        measured = give_transfers(ours, job.store(1), job.blocks(1), job.tokens, is_checksummed)
        ours.send(None)
        differing = ours.recv()
        if differing:
            raise AssertionError(f"{differing} of {job.nbytes} bytes arrived wrong")
        return measured
    finally:
        child.join(10)
        child.kill()


def timed(job: Job, work: Callable[[], object], rounds: int) -> float:
    """Median seconds of one round over all layers, after one that does not count."""
    found = []
    for _ in range(rounds + 1):
        synchronize(job)
        started_at = time.perf_counter()
        work()
        synchronize(job)
        found.append(time.perf_counter() - started_at)
    return statistics.median(found[1:])


def steps(job: Job, rounds: int) -> dict[str, float]:
    """Seconds of each step for all layers, one after the other, in this process alone."""
    store, blocks, into = job.store(1), job.blocks(1), job.blocks(2)
    layers, whole = range(job.layers), (0, job.tokens)
    dense = [store.read_device(layer, blocks, *whole) for layer in layers] if job.device == "cuda" else []
    found = {}
    if dense:
        pinned = torch.empty(dense[0].nbytes, dtype=torch.uint8, pin_memory=True)
        tensors = [each.tensor for each in dense]  # type: ignore[attr-defined]
        found["gather on the GPU"] = timed(
            job, lambda: [store.read_device(layer, blocks, *whole) for layer in layers], rounds
        )
        found["bare copy to pinned memory"] = timed(job, lambda: [pinned.copy_(each) for each in tensors], rounds)
        found["bare copy from pinned memory"] = timed(job, lambda: [each.copy_(pinned) for each in tensors], rounds)
        found["scatter on the GPU"] = timed(
            job,
            lambda: [store.write_device(layer, into, *whole, dense[layer], at_token=0) for layer in layers],
            rounds,
        )
    payloads = [store.read(layer, blocks, *whole)() for layer in layers]
    found["read: gather and copy"] = timed(
        job, lambda: [wait() for wait in [store.read(layer, blocks, *whole) for layer in layers]], rounds
    )

    def write() -> None:
        for layer in layers:
            store.write(layer, into, *whole, payloads[layer], at_token=0)
        store.flush()

    found["write: copy and scatter"] = timed(job, write, rounds)
    return found


def overlap(job: Job, rounds: int) -> dict[str, float]:
    """Seconds of matrix products alone, and with a layer's KV read after each, as during a prefill."""
    store, blocks = job.store(1), job.blocks(1)
    matrix = torch.randn(8192, 8192, dtype=torch.bfloat16, device=job.device)

    def compute(is_saving: bool) -> None:
        waits = []
        for layer in range(job.layers):
            for _ in range(4):
                torch.mm(matrix, matrix)
            if is_saving:
                waits.append(store.read(layer, blocks, 0, job.tokens))
        for wait in waits:
            wait()

    return {
        "computing alone": timed(job, lambda: compute(False), rounds),
        "computing while KV leaves": timed(job, lambda: compute(True), rounds),
    }


def show(job: Job, seconds: dict[str, float]) -> None:
    print(f"{'':<32}{'ms':>9}{'GB/s':>9}")
    for what, each in seconds.items():
        rate = "" if what == "computing alone" else f"{job.nbytes / each / 1e9:>9.2f}"
        print(f"{what:<32}{each * 1e3:>9.2f}{rate}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--layout", choices=("NHD", "HND"), default="NHD", help="of the cache's memory (default NHD)")
    parser.add_argument("--layers", type=at_least(1), default=32)
    parser.add_argument("--tokens", type=at_least(1), default=2040, help="of the prompt (default 2040)")
    parser.add_argument("--rounds", type=at_least(1), default=5)
    arguments = parser.parse_args(argv)
    job = Job(arguments.device, arguments.dtype, arguments.layout, arguments.layers, arguments.tokens)
    if job.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; --device cpu tries the script without one")
    device = torch.cuda.get_device_name() if job.device == "cuda" else "CPU"
    print(
        f"{device}, torch {torch.__version__}: {job.layers} layers of {job.tokens} tokens, {job.dtype}, {job.layout},"
        f" blocks of {BLOCK}: {job.nbytes / 1e6:.0f} MB",
        flush=True,
    )
    seconds = steps(job, arguments.rounds)
    if job.device == "cuda":
        seconds |= overlap(job, arguments.rounds)
    cpu_s = {}
    for what, is_checksummed in CHECKSUMS.items():
        found = []
        for number in range(arguments.rounds):
            found.append(end_to_end(job, is_checksummed))
            print(f"{what}: {number + 1} of {arguments.rounds}, every byte right", file=sys.stderr, flush=True)
        seconds[what] = statistics.median(each.seconds for each in found)
        cpu_s[what] = statistics.median(each.cpu_s for each in found)
    show(job, seconds)
    told = {"device": device, "layout": job.layout, "dtype": job.dtype, "bytes": job.nbytes}
    print(json.dumps({**told, "seconds": seconds, "cpu_s": cpu_s}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
