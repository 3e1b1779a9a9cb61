#!/usr/bin/env python3
"""How fast KV cache moves from the prefill to the decode engine, and what the hardware could do.

    benchmarks/bandwidth.py --prompt-lengths 100 500 1000 --iterations 3

Sends fresh prompts with one-token answers, so that every one is a prefill, a handoff of the whole prompt and one
decode step. Apparent bandwidth is the KV cache's size over the time to first token less what the prefill engine
says it took: a lower bound, because two HTTP requests and a decode step are in it. Beside it stands what the decode
engine's NIXL connector measured, where it tells.

A token's size comes from --kv-bytes-per-token or --model-config, else from what NIXL moved (whole blocks).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import command_line
from chat_client import ProxyClient, RequestFailed, new_session
from command_line import at_least, shown, table
from engine_figures import EngineMetrics, find_engine_metrics, gained, summed
from estimates import WAIT_S, median
from kv_size import FORMULA, add_kv_arguments, read_kv_bytes
from prompts import Prompts, measured_prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """One way for KV to travel: theoretical and practical bandwidth in GB/s as texts, and the practical lower end."""

    name: str
    theoretical: str
    practical: str
    limit_gb_per_s: float


TRANSPORTS = (
    Transport(name="Localhost loopback", theoretical="-", practical="10-50 (memory-bound)", limit_gb_per_s=10.0),
    Transport(name="PCIe 4.0 x16", theoretical="32", practical="~25", limit_gb_per_s=25.0),
    Transport(name="100GbE", theoretical="12.5", practical="~10", limit_gb_per_s=10.0),
    Transport(name="25GbE", theoretical="3.1", practical="~2.5", limit_gb_per_s=2.5),
    Transport(name="10GbE", theoretical="1.25", practical="~1.0", limit_gb_per_s=1.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """One request. `engines` is what the engines counted over it."""

    prompt_tokens: int
    first_token_s: float
    engines: Mapping[str, float]

    @property
    def handoff_s(self) -> float:
        """The time to first token less the prefill engine's own; all of it where that engine does not tell, or tells
        of other requests too."""
        rest_s = self.first_token_s - self.engines.get("prefill_request_s", 0.0)
        return rest_s if rest_s > 0 else self.first_token_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All requests of one prompt length: medians, and the connector's own figures where it tells (NIXL, ours).

    `waits` are transfers that took longer than `WAIT_S`.
    """

    prompt_tokens: int
    kv_bytes: float
    first_token_s: float
    prefill_s: float | None
    handoff_s: float
    transfer_bytes: float | None
    transfer_s: float | None
    waits: int

    @property
    def apparent_gb_per_s(self) -> float:
        return self.kv_bytes / self.handoff_s / 1e9

    @property
    def measured_gb_per_s(self) -> float | None:
        return self.transfer_bytes / self.transfer_s / 1e9 if self.transfer_bytes and self.transfer_s else None


def bytes_per_token(handoffs: Sequence[Handoff]) -> float | None:
    """What was moved per prompt token that came from another engine; None where it does not tell."""
    total = summed([handoff.engines for handoff in handoffs])
    tokens = total.get("external_kv_transfer", 0.0)
    return total.get("transfer_bytes", 0.0) / tokens or None if tokens else None


def make_row(handoffs: Sequence[Handoff], kv_bytes_per_token: float) -> Row:
    total = summed([handoff.engines for handoff in handoffs])
    prefill = [handoff.engines["prefill_request_s"] for handoff in handoffs if "prefill_request_s" in handoff.engines]
    tokens = round(median([handoff.prompt_tokens for handoff in handoffs]))
    is_told = bool(total.get("transfer_bytes"))
    seconds = [handoff.engines["transfer_s"] for handoff in handoffs if "transfer_s" in handoff.engines]
    return Row(
        prompt_tokens=tokens,
        kv_bytes=tokens * kv_bytes_per_token,
        first_token_s=median([handoff.first_token_s for handoff in handoffs]),
        prefill_s=median(prefill) if prefill else None,
        handoff_s=median([handoff.handoff_s for handoff in handoffs]),
        transfer_bytes=total["transfer_bytes"] / len(handoffs) if is_told else None,
        transfer_s=median(seconds) if is_told and seconds else None,
        waits=sum(each > WAIT_S for each in seconds),
    )


async def hand_off(client: ProxyClient, metrics: EngineMetrics, model: str, prompt: str) -> Handoff:
    """Send one fresh prompt; RequestFailed when the proxy did not serve it as pd."""
    before = await metrics.read()
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "ignore_eos": True}
    answer = await client.complete(body | {"stream": True, "stream_options": {"include_usage": True}})
    if answer.route != "pd":
        raise RequestFailed(f"a fresh prompt took the route {answer.route} ({answer.reason}): nothing was handed over")
    if answer.prompt_tokens is None or answer.first_token_s is None:
        raise RequestFailed("the answer has no usage: the engine ignores stream_options")
    await metrics.read_after(before, "decode_requests")
    after = await metrics.read_after(before, "transfers")
    return Handoff(
        prompt_tokens=answer.prompt_tokens, first_token_s=answer.first_token_s, engines=gained(before, after)
    )


async def measure(options: argparse.Namespace) -> tuple[float, list[Row], list[Handoff]]:
    """Bytes per token, one row per prompt length, and every request; after one request that does not count."""
    async with new_session() as session:
        client = ProxyClient(session, options.url, api_key=options.api_key, admin_key=options.admin_key)
        model = options.model or await client.first_model()
        prompts: Prompts = await measured_prompts(client, model, options.seed)
        metrics = await find_engine_metrics(
            session, client, prefill=options.prefill_metrics, decode=options.decode_metrics
        )
        await hand_off(client, metrics, model, prompts.unique(max(options.prompt_lengths)))
        groups: list[list[Handoff]] = []
        for length in options.prompt_lengths:
            groups.append([])
            for _ in range(options.iterations):
                groups[-1].append(await hand_off(client, metrics, model, prompts.unique(length)))
            print(f"{length} tokens: {options.iterations} handoffs", file=sys.stderr, flush=True)
    everything = [handoff for group in groups for handoff in group]
    size = options.kv_bytes or bytes_per_token(everything)
    if size is None:
        raise RequestFailed("the engines do not tell what they moved: give --kv-bytes-per-token or --model-config")
    return size, [make_row(group, size) for group in groups], everything


def result_table(rows: Sequence[Row]) -> str:
    headers = ["Prompt tokens", "KV cache (MB)", "First token (ms)", "Prefill engine (ms)", "Handoff (ms)"]
    headers += ["Apparent (GB/s)", "Moved (MB)", "Transfer (ms)", "Measured (GB/s)", "Waits"]
    return table(
        headers,
        [
            [
                f"{row.prompt_tokens:,}",
                shown(row.kv_bytes, 1e-6),
                shown(row.first_token_s, 1e3),
                shown(row.prefill_s, 1e3),
                shown(row.handoff_s, 1e3),
                shown(row.apparent_gb_per_s, digits=3),
                shown(row.transfer_bytes, 1e-6),
                shown(row.transfer_s, 1e3),
                shown(row.measured_gb_per_s, digits=3),
                str(row.waits),
            ]
            for row in rows
        ],
    )


def hardware_table(best_gb_per_s: float) -> str:
    """The bandwidths to compare with, and how much of each the best measured one is."""
    return table(
        ["Transport", "Theoretical (GB/s)", "Practical (GB/s)", "Best seen is"],
        [
            [each.name, each.theoretical, each.practical, f"{best_gb_per_s / each.limit_gb_per_s:.1%} of practical"]
            for each in TRANSPORTS
        ],
    )


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    lengths = [100, 500, 1000]
    add("--prompt-lengths", type=at_least(9), nargs="+", default=lengths, metavar="N", help="tokens (100 500 1000)")
    add("--iterations", type=at_least(1), default=3, help="requests per length (default 3)")
    add_kv_arguments(parser)
    command_line.add_proxy_arguments(parser)
    command_line.add_result_arguments(parser)
    options = parser.parse_args(arguments)
    command_line.check_plot(parser, options.plot)
    options.kv_bytes = read_kv_bytes(parser, options)
    return options


async def main(options: argparse.Namespace) -> int:
    size, rows, handoffs = await measure(options)
    origin = "as given" if options.kv_bytes else "as it was moved"
    best = max(max(row.apparent_gb_per_s, row.measured_gb_per_s or 0.0) for row in rows)
    print(f"{FORMULA}\nHere: {size:,.0f} bytes per token, {origin}\n\n{result_table(rows)}\n\n{hardware_table(best)}\n")
    described = [
        {**asdict(row), "apparent_gb_per_s": row.apparent_gb_per_s, "measured_gb_per_s": row.measured_gb_per_s}
        for row in rows
    ]
    summary: dict[str, Any] = {"benchmark": "bandwidth", "kv_bytes_per_token": size, "rows": described}
    summary["iterations"] = options.iterations
    command_line.write_results(options.output, summary | {"handoffs": [asdict(handoff) for handoff in handoffs]})
    if options.plot:
        from figures import draw_bandwidth

        limits = [(each.name, each.limit_gb_per_s) for each in TRANSPORTS if each.name != "Localhost loopback"]
        draw_bandwidth(
            [row.kv_bytes / 1e6 for row in rows],
            [row.apparent_gb_per_s for row in rows],
            [row.measured_gb_per_s for row in rows],
            limits,
            options.plot,
        )
    command_line.write_json_line(options.json, summary)
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main(parse_arguments())))
