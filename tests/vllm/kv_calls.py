"""Handing KV over by hand: both legs of a request with a tag of ours, and what the connector says of itself."""

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.vllm.engine_calls import Answer, call

from cluster import HOST, Cluster, ClusterSpec, Engine, EngineSpec
from ppd_connector import wire

BYTES_PER_TOKEN = 4 * 2 * 2 * 64 * 4
"""Of the tiny model in float32: layers x (K and V) x KV heads x head size x bytes."""
WORDS = (
    "river mountain cloud engine window paper copper garden winter signal harbor velvet orange silent forest".split()
)
WAIT_S = 30.0


def prompt_of(words: int, seed: int) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) for _ in range(words))


def ppd_cluster(
    *,
    decode: dict[str, Any] | None = None,
    prefill: dict[str, Any] | None = None,
    dtype: str = "float32",
    **changes: Any,
) -> ClusterSpec:
    """1 prefill, 1 decode and 1 aggregated engine; `decode` and `prefill` change their `EngineSpec`."""
    common = {"dtype": dtype, "connector": "ppd"}
    engines = (
        EngineSpec(role="prefill", **{**common, **(prefill or {})}),
        EngineSpec(role="decode", **{**common, **(decode or {})}),
        EngineSpec(role="aggregated", **common),
    )
    return ClusterSpec(engines=engines, **changes)


def wait_until(is_true: Callable[[], bool], what: str, limit_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.05)  # a real engine tells nothing but its metrics


@dataclass(frozen=True, slots=True)
class Moved:
    """What a decode engine's metrics say of KV that arrived."""

    kv_bytes: float
    tokens: float
    transfers: float
    seconds: float
    skipped_blocks: float
    failures: float

    def __sub__(self, other: "Moved") -> "Moved":
        return Moved(*(getattr(self, name) - getattr(other, name) for name in self.__dataclass_fields__))


def moved(engine: Engine) -> Moved:
    """`tokens` are what the scheduler was told, the others what the connector counted."""
    recv = {"direction": "recv"}
    return Moved(
        kv_bytes=engine.counter(wire.TRANSFER_BYTES, **recv),
        tokens=engine.counter("vllm:prompt_tokens_by_source_total", source="external_kv_transfer"),
        transfers=engine.counter(wire.TRANSFERS, **recv),
        seconds=engine.counter(wire.TRANSFER_SECONDS, **recv),
        skipped_blocks=engine.counter(wire.BLOCKS, what="skipped", **recv),
        failures=engine.counter(wire.FAILURES, **recv),
    )


def settled(engine: Engine, before: Moved, transfers: int) -> Moved:
    """What was gained since `before`, once so many more transfers (or failures) are counted."""
    wait_until(
        lambda: (now := moved(engine) - before).transfers + now.failures >= transfers, f"{transfers} transfers counted"
    )
    return moved(engine) - before


def kv_in_use(engine: Engine) -> float:
    """Share of an engine's KV cache that requests hold; cached blocks that nobody holds do not count."""
    return engine.counter("vllm:kv_cache_usage_perc")


def held_bytes(engine: Engine) -> float:
    return engine.counter(wire.HELD_BYTES)


def post(engine: Engine, request_id: str, text: str, tokens: int, **fields: Any) -> Answer:
    body = {"model": "tiny", "prompt": text, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return call(
        f"{engine.url}/v1/completions",
        {**body, "return_token_ids": True, **fields},
        headers={"x-request-id": request_id},
    )


def new_tag(prefill: Engine, decode: Engine, held_tokens: int = 0) -> str:
    """A request id that names both engines."""
    addresses = [f"{HOST}:{engine.kv_port}" for engine in (prefill, decode)]
    return wire.request_tag(*addresses, uuid.uuid4().hex, held_tokens)


def hand_over(cluster: Cluster, text: str, tokens: int = 64, *, held_tokens: int = 0, **fields: Any) -> Answer:
    """Both legs of one request without the proxy, both with `fields`: the decode engine's answer."""
    prefill, decode = cluster.engine("prefill"), cluster.engine("decode")
    tag = new_tag(prefill, decode, held_tokens)
    first = post(prefill, tag, text, 1, **fields)
    assert first.status == 200, first
    return post(decode, tag, text, tokens, **fields)
