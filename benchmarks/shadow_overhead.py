#!/usr/bin/env python3
"""What sampling costs clients and the proxy: time to first token and CPU per turn with sampling and without.

    benchmarks/shadow_overhead.py --rounds 10 --requests 400

A simulated cluster with a baseline; rounds at rate 0, 1 and 0.01 alternate on one proxy (`POST /accuracy/rate`).
Conversations of two streamed turns, `--clients` at a time. Time to first token is the client's, CPU is the proxy's own
(user and system, checks and journal included). Medians over rounds, ratios within a round; one JSON line at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from chat_client import ProxyClient, new_session
from cluster import Cluster, ClusterSpec, EngineSpec
from command_line import at_least

RATES = ("0", "1", "0.01")
ANSWER_TOKENS = 32


class Round(NamedTuple):
    """Milliseconds of first tokens, and of the proxy's CPU per turn."""

    first_ms: list[float]
    cpu_ms: float


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def play(client: ProxyClient, number: int, turns: int) -> list[float]:
    """One conversation; the first-token times of its turns."""
    chance = random.Random(number)
    messages: list[dict[str, Any]] = []
    found = []
    for _ in range(turns):
        text = " ".join(str(chance.randint(0, 10**6)) for _ in range(40))
        messages.append({"role": "user", "content": text})
        body = {
            "model": "sim", "messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0, "stream": True,
        }  # fmt: skip
        answer = await client.chat(body)
        assert answer.first_token_s is not None
        found.append(answer.first_token_s * 1000)
        messages.append({"role": "assistant", "content": answer.text})
    return found


async def measure(
    session: aiohttp.ClientSession, cluster: Cluster, rate: str, first: int, options: argparse.Namespace
) -> Round:
    url = cluster.proxy_url
    async with session.post(f"{url}/accuracy/rate/{rate}") as answer:
        assert answer.status == 200, await answer.text()
    client = ProxyClient(session, url)
    limit = asyncio.Semaphore(options.clients)
    first_ms: list[float] = []

    async def one(number: int) -> None:
        async with limit:
            first_ms.extend(await play(client, number, 2))

    assert cluster.proxy is not None
    before = cpu_s(cluster.proxy.pid)
    await asyncio.gather(*(one(number) for number in range(first, first + options.requests // 2)))
    while True:  # a check belongs to the round that it was taken in
        async with session.get(f"{url}/accuracy") as answer:
            told = await answer.json()
        if not told["waiting"] and not told["checking"]:
            break
        await asyncio.sleep(0.05)
    return Round(first_ms, (cpu_s(cluster.proxy.pid) - before) * 1000 / len(first_ms))


async def run(cluster: Cluster, options: argparse.Namespace) -> dict[str, list[Round]]:
    found: dict[str, list[Round]] = {rate: [] for rate in RATES}
    async with new_session() as session:
        number = 0
        await measure(session, cluster, "1", number, options)  # warm, and a noise floor begins
        for turn in range(options.rounds):
            for rate in RATES if turn % 2 else reversed(RATES):
                number += options.requests
                found[rate].append(await measure(session, cluster, rate, number, options))
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr, flush=True)
    return found


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(1), default=10)
    parser.add_argument("--requests", type=at_least(10), default=400, help="turns per round (default 400)")
    parser.add_argument("--clients", type=at_least(1), default=2, help="at a time (default 2)")
    parser.add_argument("--top-logprobs", type=at_least(0), default=0, help="likeliest tokens to compare (default 0)")
    parser.add_argument("--prefill-rate", type=at_least(1), default=4000, help="simulated tokens per second (4000)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is running is stopped, too
    timing = ("--prefill-tokens-per-s", str(options.prefill_rate), "--decode-ms-per-token", "2")
    engines = [EngineSpec(role=role, kind="simulated", extra_args=timing) for role in ("prefill", "decode")]
    baseline = EngineSpec(role="aggregated", kind="simulated", is_baseline=True)
    with tempfile.TemporaryDirectory() as directory:
        spec = ClusterSpec(
            engines=(*engines, baseline),
            logs=Path(directory),
            proxy_args=(
                "--shadow-rate", "1", "--shadow-queue", "5000", "--journal", f"{directory}/journal.db",
                "--shadow-top-logprobs", str(options.top_logprobs),
            ),
        )
        with Cluster(spec, report=lambda line: print(line, file=sys.stderr)) as cluster:
            found = asyncio.run(run(cluster, options))
    print(f"{'rate':<8}{'first token ms':>16}{'p99 ms':>9}{'CPU ms/turn':>13}", end="")
    print(f"{'to rate 0: median':>20}{'p99':>7}{'CPU':>7}")
    told = {}
    for rate in RATES:
        rounds, plain = found[rate], found["0"]
        ratios = [
            statistics.median(measured(one) / measured(other) for one, other in zip(rounds, plain, strict=True))
            for measured in (
                lambda each: statistics.median(each.first_ms),
                lambda each: quantile(each.first_ms, 0.99),
                lambda each: each.cpu_ms,
            )
        ]
        median = statistics.median(statistics.median(each.first_ms) for each in rounds)
        late = statistics.median(quantile(each.first_ms, 0.99) for each in rounds)
        cpu = statistics.median(each.cpu_ms for each in rounds)
        told[rate] = {"first_ms": median, "p99_ms": late, "cpu_ms": cpu, "ratios": ratios}
        print(f"{rate:<8}{median:>16.2f}{late:>9.2f}{cpu:>13.3f}{ratios[0]:>20.3f}{ratios[1]:>7.3f}{ratios[2]:>7.3f}")
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
