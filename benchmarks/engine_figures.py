"""What the engines count on their own `/metrics`: requests, where prompt tokens came from, KV transfers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from chat_client import ProxyClient, RequestFailed
from ppd_connector import wire

SOURCES: Final = ("local_cache_hit", "external_kv_transfer", "local_compute")
_BY_SOURCE: Final = "vllm:prompt_tokens_by_source_total"
_SERIES: Final = MappingProxyType(
    {
        ("prefill", "vllm:request_success_total"): "prefill_requests",
        ("prefill", "vllm:e2e_request_latency_seconds_sum"): "prefill_request_s",
        ("decode", "vllm:request_success_total"): "decode_requests",
        ("decode", "vllm:nixl_bytes_transferred_sum"): "transfer_bytes",
        ("decode", "vllm:nixl_bytes_transferred_count"): "transfers",
        ("decode", "vllm:nixl_xfer_time_seconds_sum"): "transfer_s",
        ("decode", wire.TRANSFER_BYTES): "transfer_bytes",
        ("decode", wire.TRANSFERS): "transfers",
        ("decode", wire.TRANSFER_SECONDS): "transfer_s",
    }
)
_POLL_S: Final = 0.02
_SETTLE_S: Final = 3.0

Figures = Mapping[str, float]
"""Counters by name (the values of `_SERIES`, and `SOURCES` in tokens), each summed over its engines; a counter that
no engine exports is missing."""


def figures_of(role: str, exposition: str) -> dict[str, float]:
    """The figures of one engine of this role."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            name = _SERIES.get((role, sample.name))
            if sample.labels.get("direction") == "send":
                continue  # a decode engine that is a prefill engine, too
            if role == "decode" and sample.name == _BY_SOURCE:
                name = sample.labels.get("source")
            if name is not None:
                found[name] = found.get(name, 0.0) + sample.value
    return found


def route_decisions(exposition: str) -> dict[str, float]:
    """Decisions of the proxy by `mode/route`, from the text of its `/metrics`."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == "ppd_route_decisions_total":
                key = f"{sample.labels['mode']}/{sample.labels['route']}"
                found[key] = found.get(key, 0.0) + sample.value
    return found


def gained(before: Figures, after: Figures) -> dict[str, float]:
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def summed(parts: Sequence[Figures]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMetrics:
    """The `/metrics` addresses of the engines, by role."""

    session: aiohttp.ClientSession
    prefill: Sequence[str]
    decode: Sequence[str]

    async def read(self) -> Figures:
        """The counters now. RequestFailed names an engine that does not answer."""
        pairs = [("prefill", url) for url in self.prefill] + [("decode", url) for url in self.decode]
        texts = await asyncio.gather(*(self._text(url) for _, url in pairs))
        return summed([figures_of(role, text) for (role, _), text in zip(pairs, texts, strict=True)])

    async def read_after(self, before: Figures, name: str, count: int = 1) -> Figures:
        """The counters once `name` has grown by `count`; engines count an answer a moment after they sent it.

        After three seconds the counters as they are.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + _SETTLE_S
        while True:
            now = await self.read()
            if name not in now or now[name] - before.get(name, 0.0) >= count or loop.time() > ends_at:
                return now
            await asyncio.sleep(_POLL_S)

    async def _text(self, url: str) -> str:
        try:
            async with self.session.get(url) as response:
                if response.status != 200:
                    raise RequestFailed(f"{url}: status {response.status}")
                return await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RequestFailed(f"{url}: {type(error).__name__}: {error}") from error


async def find_engine_metrics(
    session: aiohttp.ClientSession, client: ProxyClient, *, prefill: Sequence[str], decode: Sequence[str]
) -> EngineMetrics:
    """The given addresses; for a role without one, those of the engines that the proxy knows and that are up."""
    known: dict[str, list[str]] = {"prefill": list(prefill), "decode": list(decode)}
    if not prefill or not decode:
        for engine in await client.engines():
            if engine.role in known and engine.state == "up" and not (prefill if engine.role == "prefill" else decode):
                known[engine.role].append(f"{engine.url.rstrip('/')}/metrics")
    return EngineMetrics(session=session, prefill=known["prefill"], decode=known["decode"])
