#!/usr/bin/env python3
"""What a proxy itself costs: CPU time per turn of five-turn chats, and latency, before engines that answer at once.

    benchmarks/overhead.py [--peer vllm-router=PROGRAM] [--python PYTHON --python-path DIRS]
    benchmarks/overhead.py --proxy 'one=ppd-proxy serve --port {port} ...' --proxy 'other=other-proxy -p {port} ...'

Starts a prefill, a decode and a baseline engine (instant_engine.py), then every proxy in turn, `--rounds` times, and
plays chats through it with wrk: JSON and streamed, at `--connections` and at one; then times the first token at one
connection, in turns with a bare relay (two loopback hops, no proxy) and with the engine itself. Ours runs in mode ppd,
in mode pd and with 1 % of answers checked, metrics, conversations and access log on. Published proxies are looked for
on PATH; one that is not there is named, and not measured. With --proxy only what that names is run: in a command {port}
stands for the port to listen on, {prefill}, {decode} and {baseline} for the engines' URLs, {free_port} for a free port.

Prints medians over the rounds, ratios of CPU to the first proxy (of published ones, where one is there), and one JSON
line. CPU per turn is what to compare: times also measure wrk and the engines. Figures of different machines or runs do
not compare. Linux only; needs wrk. Exit status 1 when a turn failed, or a proxy that was named did not start.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import command_line
import machine
import proxies
from chat_client import RequestFailed
from command_line import at_least, table
from estimates import median
from first_token import first_tokens_ms
from proxy_runs import Proxy, counts, cpu_seconds, environment, instant_engine, running_proxy, serving

HERE: Final = Path(__file__).resolve().parent
KINDS: Final = ("json", "sse")
ENGINES: Final = ("prefill", "decode", "baseline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement of one proxy. `single_` is at one connection. `prefill_share` and `checked_share` are requests
    to the prefill engine, and scores that the baseline gave, per turn; `failed` counts turns."""

    cpu_ms_per_turn: float
    turns_per_s: float
    p50_ms: float
    p99_ms: float
    single_p50_ms: float
    single_p99_ms: float
    prefill_share: float
    checked_share: float
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToken:
    """Medians of one round in milliseconds: through the proxy, through the relay, of the engine itself; the 99th
    percentile through the proxy."""

    proxy_ms: float
    relay_ms: float
    engine_ms: float
    p99_ms: float

    @property
    def added_ms(self) -> float:
        return self.proxy_ms - self.engine_ms

    @property
    def hops_ms(self) -> float:
        return self.relay_ms - self.engine_ms


@dataclass(slots=True)
class Rounds:
    """All samples of one proxy, one per round."""

    kinds: dict[str, list[Sample]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    first_tokens: list[FirstToken] = field(default_factory=list)


def parse_peer(text: str) -> tuple[str, str]:
    """An argparse type: NAME=PROGRAM of a proxy that we know how to start."""
    name, separator, program = text.partition("=")
    if not separator or not program or name not in proxies.PEERS:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PROGRAM with a name of {', '.join(proxies.PEERS)}")
    return name, program


def play(url: str, seconds: int, kind: str, connections: int, turns: int) -> dict[str, float]:
    """Chats through a proxy; the figures that conversations.lua prints."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(HERE / "conversations.lua"), url]
    own = {"STREAM": str(int(kind == "sse")), "TURNS": str(turns), "RUN": str(time.time_ns())}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | own)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            told = dict(json.loads(line.removeprefix("RESULT ")))
            if told["turns"]:
                return told
            raise RequestFailed(f"{url} answered nothing in {seconds} s")
    raise RequestFailed(f"wrk ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")


def prefills(engines: Mapping[str, str]) -> int:
    return sum(count for path, count in counts(engines["prefill"]).items() if "completions" in path)


def measure(session: int, url: str, engines: Mapping[str, str], kind: str, options: argparse.Namespace) -> Sample:
    if options.warmup_seconds:
        play(url, options.warmup_seconds, kind, options.connections, options.turns)
    scores = counts(engines["baseline"]).get("/score", 0)
    cpu_before, prefills_before = cpu_seconds(session), prefills(engines)
    told = play(url, options.seconds, kind, options.connections, options.turns)
    used_s, turns = cpu_seconds(session) - cpu_before, told["turns"]
    prefill_share = (prefills(engines) - prefills_before) / turns
    checked_share = (counts(engines["baseline"]).get("/score", 0) - scores) / turns
    single = play(url, options.single_seconds, kind, 1, options.turns)
    return Sample(
        cpu_ms_per_turn=1e3 * used_s / turns,
        turns_per_s=turns / told["seconds"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        single_p50_ms=single["p50_ms"],
        single_p99_ms=single["p99_ms"],
        prefill_share=prefill_share,
        checked_share=checked_share,
        failed=int(told["refused"] + told["broken"] + single["refused"] + single["broken"]),
    )


def measure_first_token(url: str, relay: str, decode: str, options: argparse.Namespace) -> FirstToken:
    addresses = {"proxy": url.removeprefix("http://"), "relay": relay, "engine": decode.removeprefix("http://")}
    found = first_tokens_ms(addresses, options.first_token_chats, options.turns)
    late = sorted(found["proxy"])[int(0.99 * (len(found["proxy"]) - 1))]
    return FirstToken(
        proxy_ms=median(found["proxy"]), relay_ms=median(found["relay"]), engine_ms=median(found["engine"]), p99_ms=late
    )


def measure_round(proxy: Proxy, engines: Mapping[str, str], relay: str, options: argparse.Namespace) -> Rounds:
    """One round of one proxy."""
    found = Rounds()
    with running_proxy(proxy, engines) as (session, url):
        for kind in KINDS:
            sample = measure(session, url, engines, kind, options)
            found.kinds[kind].append(sample)
            told = f"{sample.cpu_ms_per_turn:.4f} ms CPU per turn, {sample.turns_per_s:,.0f} turns/s"
            print(f"{proxy.name} {kind}: {told}", file=sys.stderr, flush=True)
        found.first_tokens.append(measure_first_token(url, relay, engines["decode"], options))
    return found


def run(chosen: Sequence[Proxy], options: argparse.Namespace) -> tuple[dict[str, Rounds], dict[str, str]]:
    """The samples by proxy, and why some proxies have none: one that fails once is not started again."""
    found = {proxy.name: Rounds() for proxy in chosen}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        engines = {role: stack.enter_context(instant_engine(role, options.chunks)) for role in ENGINES}
        command = [sys.executable, str(HERE / "first_token.py"), "--relay", engines["decode"].removeprefix("http://")]
        _, relay = stack.enter_context(serving(command))
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for proxy in chosen:
                if proxy.name in failed:
                    continue
                try:
                    added = measure_round(proxy, engines, relay, options)
                except RequestFailed as error:
                    failed[proxy.name] = str(error)
                    print(f"{proxy.name}: {error}", file=sys.stderr, flush=True)
                    continue
                for kind in KINDS:
                    found[proxy.name].kinds[kind] += added.kinds[kind]
                found[proxy.name].first_tokens += added.first_tokens
    return {name: rounds for name, rounds in found.items() if name not in failed}, failed


def middle(samples: Sequence[Any], name: str) -> float:
    return median([getattr(sample, name) for sample in samples])


def reference(names: Sequence[str]) -> str:
    """The proxy that others are compared with: the first published one, else the first."""
    return next((name for name in names if name in proxies.PEERS), names[0])


def summarise(found: Mapping[str, Rounds]) -> dict[str, dict[str, dict[str, float]]]:
    """Medians over the rounds, the ratio of CPU per turn to the reference's, and the sum of failed turns."""
    first = found[reference(list(found))]
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for name, rounds in found.items():
        kinds = {
            kind: {
                **{each: round(middle(samples, each), 4) for each in asdict(samples[0]) if each != "failed"},
                "ratio": round(middle(samples, "cpu_ms_per_turn") / middle(first.kinds[kind], "cpu_ms_per_turn"), 3),
                "failed": sum(sample.failed for sample in samples),
            }
            for kind, samples in rounds.kinds.items()
        }
        fields = ("proxy_ms", "relay_ms", "engine_ms", "p99_ms", "added_ms", "hops_ms")
        first_token = {each: round(middle(rounds.first_tokens, each), 4) for each in fields}
        summary[name] = {**kinds, "first_token": first_token}
    return summary


def cost_table(summary: Mapping[str, Mapping[str, Mapping[str, float]]], connections: int) -> str:
    headers = ["Proxy", "Answers", "CPU ms per turn", "Ratio", "Turns/s", f"p50 at {connections} (ms)"]
    headers += [f"p99 at {connections}", "p50 at 1", "p99 at 1", "Prefill share", "Checked", "Failed"]
    rows = [
        [
            name,
            kind.upper(),
            f"{figures['cpu_ms_per_turn']:.4f}",
            f"{figures['ratio']:.2f}",
            f"{figures['turns_per_s']:,.0f}",
            *(f"{figures[each]:.2f}" for each in ("p50_ms", "p99_ms", "single_p50_ms", "single_p99_ms")),
            *(f"{figures[each]:.3f}" for each in ("prefill_share", "checked_share")),
            str(figures["failed"]),
        ]
        for kind in KINDS
        for name, kinds in summary.items()
        for figures in [kinds[kind]]
    ]
    return table(headers, rows)


def first_token_table(summary: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """One connection: medians of each proxy, of a bare relay and of the engine, and what the first two add."""
    headers = ["First token, one connection", "p50 (ms)", "p99", "Engine itself", "Added", "Two bare hops add"]
    shown = ("proxy_ms", "p99_ms", "engine_ms", "added_ms", "hops_ms")
    rows = [[name, *(f"{kinds['first_token'][each]:.3f}" for each in shown)] for name, kinds in summary.items()]
    return table(headers, rows)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    alone = "only this proxy, repeatable"
    add("--proxy", type=proxies.parse_proxy, action="append", metavar="NAME=COMMAND", help=alone)
    known = f"where a published proxy is ({', '.join(proxies.PEERS)}), repeatable; default: on PATH"
    add("--peer", type=parse_peer, action="append", default=[], metavar="NAME=PROGRAM", help=known)
    add("--no-peers", action="store_true", help="ours only")
    proxies.add_interpreter_arguments(parser)
    add("--rounds", type=at_least(1), default=5, help="times every proxy is started and measured (default 5)")
    add("--seconds", type=at_least(1), default=6, help="length of a measurement (default 6)")
    add("--single-seconds", type=at_least(1), default=3, help="length of one at one connection (default 3)")
    add("--warmup-seconds", type=at_least(0), default=2, help="chats before a measurement (default 2)")
    add("--connections", type=at_least(1), default=32, help="requests in flight, at most 64 (default 32)")
    add("--turns", type=at_least(1), default=5, help="turns of a chat (default 5)")
    add("--chunks", type=at_least(2), default=64, help="events of a streamed answer (default 64)")
    add("--first-token-chats", type=at_least(1), default=60, help="chats to time first tokens of (default 60)")
    command_line.add_result_arguments(parser)
    options = parser.parse_args(arguments)
    names = [proxy.name for proxy in options.proxy or ()]
    if len(set(names)) < len(names):
        parser.error(f"--proxy: give each proxy its own name, not {', '.join(names)}")
    if options.connections > 64:
        parser.error(f"--connections: {options.connections} is more than the 64 chats that advance side by side")
    proxies.check_interpreter(parser, options)
    command_line.check_plot(parser, options.plot)
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: apt install wrk, or https://github.com/wg/wrk")
    return options


def choose(options: argparse.Namespace) -> tuple[list[Proxy], dict[str, str]]:
    """What to measure, and what is not there to be measured."""
    if options.proxy:
        return options.proxy, {}
    own = list(proxies.ours(options.python, options.python_path))
    if options.no_peers:
        return own, {}
    found, absent = proxies.peers(dict(options.peer), shutil.which)
    return [*found, *own], absent


def main(options: argparse.Namespace) -> int:
    """0, or 1 when a turn failed or a proxy did not start."""
    measured_on = machine.describe(options.python, environment(options.python_path))
    print(machine.sentence(measured_on), file=sys.stderr, flush=True)
    chosen, absent = choose(options)
    for name, reason in absent.items():
        print(f"{name}: not measured: {reason}", file=sys.stderr, flush=True)
    found, failed = run(chosen, options)
    not_measured = {**absent, **failed}
    summary = summarise(found) if found else {}
    if summary:
        print(machine.sentence(measured_on), cost_table(summary, options.connections), sep="\n\n", end="\n\n")
        print(f"Ratio: to {reference(list(summary))}.\n\n{first_token_table(summary)}", end="\n\n")
    for name, reason in not_measured.items():
        print(f"Not measured: {name}: {reason}")
    names = ("rounds", "seconds", "connections", "turns", "chunks")
    line: dict[str, Any] = {"benchmark": "overhead", "options": {name: getattr(options, name) for name in names}}
    line |= {"machine": measured_on, "proxies": summary, "not_measured": not_measured}
    rounds = {name: asdict(each) for name, each in found.items()}
    command_line.write_results(options.output, {**line, "rounds": rounds})
    if options.plot is not None and summary:
        from load_figures import draw_overhead

        draw_overhead(summary, options.connections, machine.sentence(measured_on), options.plot)
    command_line.write_json_line(options.json, line)
    has_failed = any(kinds[kind]["failed"] for kinds in summary.values() for kind in KINDS)
    return int(bool(failed) or has_failed or not set(dict(options.peer)).isdisjoint(absent))


if __name__ == "__main__":
    try:
        sys.exit(main(parse_arguments()))
    except KeyboardInterrupt:
        sys.exit(command_line.INTERRUPTED)
    except RequestFailed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
