"""What an endpoint is, by the names and totals on its metrics page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

EndpointKind = Literal["aggregated", "prefill", "decode", "ppd-proxy", "router"]
Totals = Mapping[tuple[str, str], float]
"""Sums by a series' name and by the value of its label `direction` or `source`, "" where it has none."""

_ROUTERS = (
    ("vllm:healthy_pods_total", "the router of production-stack"),
    ("vllm:num_decoding_requests", "the router of production-stack"),
    ("vllm_router_", "vLLM's router"),
    ("sgl_router_", "SGLang's router"),
    ("dynamo_frontend_", "a Dynamo frontend"),
)
_TRANSFERS: tuple[tuple[str, str, EndpointKind, str], ...] = (
    ("vllm:ppd_kv_transfers_total", "send", "prefill", "it sent KV"),
    ("vllm:ppd_kv_transfers_total", "recv", "decode", "it received KV"),
    ("vllm:nixl_xfer_time_seconds_count", "", "decode", "it pulled KV"),
    ("vllm:nixl_num_kv_expired_reqs_total", "", "prefill", "KV was held for another engine"),
    ("vllm:prompt_tokens_by_source_total", "external_kv_transfer", "decode", "prompts whose KV came from elsewhere"),
)
_FEW_REQUESTS = 10


def signs_of(totals: Totals) -> Iterator[tuple[str, EndpointKind | None]]:
    """What it tells in words, and what follows from that; None where nothing does."""
    names = {name for name, _ in totals}
    if "ppd_route_decisions_total" in names or "ppd_engine_up" in names:
        yield "metrics of a ppd-proxy", "ppd-proxy"
        return
    for prefix, what in _ROUTERS:
        if any(name.startswith(prefix) for name in names):
            yield what, "router"
            return
    for prefix, engine in (("vllm:", "vLLM"), ("sglang:", "SGLang")):
        if any(name.startswith(prefix) for name in names):
            yield f"metrics of an engine ({engine})", None
            yield from _transfers(totals)
            return


def _transfers(totals: Totals) -> Iterator[tuple[str, EndpointKind | None]]:
    """What an engine counted of KV that it got or gave."""
    for name, label, kind, what in _TRANSFERS:
        value = totals.get((name, label), 0.0)
        if value > 0:
            yield f"{name}{f' {label}' if label else ''} {value:g}: {what}", kind
    finished = sum(value for (name, _), value in totals.items() if name == "vllm:request_success_total")
    generated = totals.get(("vllm:generation_tokens_total", ""), 0.0)
    if finished >= _FEW_REQUESTS and finished == generated:
        yield f"each of {finished:g} requests generated exactly one token", "prefill"
