#!/usr/bin/env python3
"""Many slow SSE streams through one proxy process: what is dropped, how late events are, and what a stream takes.

    benchmarks/streams.py [--load 8000@1] [--load 2000@5] [--seconds 60] [--search]

A load is STREAMS@EVENTS a second. Engine, client and proxy are one process each; the engine stamps every event with
the machine's monotonic clock, and the client compares when it reads it. Each stream is a chat's first turn in mode ppd
(prefill leg, then the slow decode leg), metrics, conversations and access log on. Printed are dropped streams (cut off,
refused, events missing or in the wrong order), the proxy's resident memory over what it was before, divided by the
streams, the delay of events, the CPU of each process as a share of one core, and who was the limit.

A load holds when every stream had begun before the measurement, nothing is dropped and the 99th percentile of the
delay is below `--limit-ms`. With --search a load that does not is halved towards the largest number of streams that
holds. Linux only; other work on the machine is in the figures, and printed. Exit status 1 when a load did not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import command_line
import machine
import proxies
from chat_client import RequestFailed
from command_line import at_least, table
from proxy_runs import (
    Proxy,
    ask,
    busy_and_idle_s,
    cpu_seconds,
    environment,
    instant_engine,
    raise_descriptor_limit,
    resident_kb,
    running_proxy,
    serving,
    stop,
)

HERE: Final = Path(__file__).resolve().parent
DEFAULT_LOADS: Final = ("8000@1", "2000@5")
SEARCH_SHARE: Final = 0.05
SEARCH_STEPS: Final = 8
FULL: Final = 0.9
"""A share of a core, or of the machine, from which on there is nothing left."""


class Load(NamedTuple):
    """So many streams, each with so many events a second."""

    streams: int
    rate: float

    def __str__(self) -> str:
        return f"{self.streams}@{self.rate:g}"


def parse_load(text: str) -> Load:
    """An argparse type: STREAMS@EVENTS."""
    streams, separator, rate = text.partition("@")
    try:
        load = Load(int(streams), float(rate))
    except ValueError:
        load = Load(0, 0.0)
    if not separator or load.streams < 1 or not 0 < load.rate <= 200:
        raise argparse.ArgumentTypeError(f"{text!r} is not STREAMS@EVENTS, up to 200 events a second")
    return load


def measure(load: Load, proxy: Proxy, options: argparse.Namespace) -> dict[str, Any]:
    """One run of a load, everything started anew; RequestFailed where something did not start."""
    with ExitStack() as stack:
        prefill = stack.enter_context(instant_engine("prefill", 2))
        command = [sys.executable, str(HERE / "stream_engine.py"), "--rate", str(load.rate)]
        engine, decode = stack.enter_context(serving(command))
        session, url = stack.enter_context(running_proxy(proxy, {"prefill": prefill, "decode": decode}))
        command = [sys.executable, str(HERE / "stream_client.py"), url.removeprefix("http://")]
        command += ["--streams", str(load.streams), "--seconds", str(options.seconds)]
        command += ["--open-per-s", str(options.open_per_s)]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        stack.callback(stop, client)
        pids = {"proxy": session, "engine": engine, "client": client.pid}
        before_kb = resident_kb(session)
        return watch(client, pids, decode, before_kb)


def watch(client: subprocess.Popen[str], pids: Mapping[str, int], decode: str, before_kb: int) -> dict[str, Any]:
    """What the client found, with what the processes took while it measured."""
    cpu: dict[str, float] = {}
    found: dict[str, Any] = {}
    busy, idle = busy_and_idle_s()
    assert client.stdout is not None
    for line in client.stdout:
        word, _, rest = line.partition(" ")
        if word.strip() == "opened":
            cpu = {name: cpu_seconds(pid) for name, pid in pids.items()}
            busy, idle = busy_and_idle_s()
            ask(decode, "/late")
        elif word.strip() == "measured":
            cpu = {name: cpu_seconds(pid) - cpu[name] for name, pid in pids.items()}
            busy, idle = (now - then for now, then in zip(busy_and_idle_s(), (busy, idle), strict=True))
            found |= {"resident_kb": resident_kb(pids["proxy"]), "engine_late_ms": ask(decode, "/late")["late_ms"]}
            ask(decode, "/finish")
        else:
            found |= json.loads(rest)
    if "streams" not in found:
        raise RequestFailed(f"the client ended with status {client.wait()}")
    core_s = (busy + idle) / machine.cores()
    found["cores"] = {name: used / core_s for name, used in cpu.items()}
    found["machine_busy"] = busy / (busy + idle)
    found["others_cores"] = max(0.0, (busy - sum(cpu.values())) / core_s)
    streams = found["open_at_the_end"]
    found["kb_per_stream"] = (found["resident_kb"] - before_kb) / streams if streams else None
    return found


def holds(found: Mapping[str, Any], limit_ms: float) -> bool:
    return not found["dropped"] and not found["never_open"] and found["delay_p99_ms"] < limit_ms


def limit_of(found: Mapping[str, Any]) -> str:
    """Who had nothing left, in words."""
    full = [f"the {name} (a core of its own)" for name, share in found["cores"].items() if share > FULL]
    if full:
        return " and ".join(full)
    if found["machine_busy"] > FULL:
        return f"the cores: all busy, {found['others_cores']:.2f} of them with other work"
    if found["never_open"]:
        return f"taking in: {found['never_open']} streams had no first event when the measurement began"
    descriptors = [name for name in found["outcomes"] if "open files" in name or name.startswith("status 5")]
    return f"descriptors or buffers ({', '.join(descriptors)})" if descriptors else "nobody"


def search(load: Load, proxy: Proxy, options: argparse.Namespace) -> tuple[Load, dict[str, Any]]:
    """The load, or the largest number of streams below it that holds."""
    found = measure(load, proxy, options)
    tell(load, found, options)
    if holds(found, options.limit_ms) or not options.search:
        return load, found
    low, high = Load(0, load.rate), load
    kept = found
    for _ in range(SEARCH_STEPS):
        if high.streams - low.streams <= max(1, SEARCH_SHARE * high.streams):
            break
        middle = Load((low.streams + high.streams) // 2, load.rate)
        found = measure(middle, proxy, options)
        tell(middle, found, options)
        if holds(found, options.limit_ms):
            low, kept = middle, found
        else:
            high = middle
    return (low, kept) if low.streams else (load, kept)


def tell(load: Load, found: Mapping[str, Any], options: argparse.Namespace) -> None:
    told = f"{found['never_open']} not begun, {found['dropped']} dropped, p99 {found['delay_p99_ms']:.1f} ms"
    word = "holds" if holds(found, options.limit_ms) else "does not hold"
    print(f"{load}: {word}: {told}, limit: {limit_of(found)}", file=sys.stderr, flush=True)


def result_table(results: Sequence[Mapping[str, Any]]) -> str:
    headers = ["Load", "Holds", "Not begun", "Dropped", "KB per stream", "Delay p50 (ms)", "p99", "max"]
    headers += ["Proxy (cores)", "Engine", "Client", "Others", "Engine late (ms)", "Limit"]
    rows = [
        [
            each["load"],
            "yes" if each["holds"] else "no",
            str(each["never_open"]),
            str(each["dropped"]),
            command_line.shown(each["kb_per_stream"]),
            *(f"{each[name]:.1f}" for name in ("delay_p50_ms", "delay_p99_ms", "delay_max_ms")),
            *(f"{each['cores'][name]:.2f}" for name in ("proxy", "engine", "client")),
            f"{each['others_cores']:.2f}",
            f"{each['engine_late_ms']:.0f}",
            each["limit"],
        ]
        for each in results
    ]
    return table(headers, rows)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--load", type=parse_load, action="append", metavar="STREAMS@EVENTS", help="repeatable (default 8000@1, 2000@5)"
    )
    add("--seconds", type=at_least(1), default=60, help="length of a measurement, with all streams open (default 60)")
    add("--open-per-s", type=at_least(1), default=500, help="streams that are opened in a second (default 500)")
    add("--limit-ms", type=at_least(1), default=100, help="p99 of the delay from which on a load fails (default 100)")
    add("--search", action="store_true", help="look for the largest number of streams where a load does not hold")
    add("--proxy", type=proxies.parse_proxy, metavar="NAME=COMMAND", help="another proxy than ours, see overhead.py")
    proxies.add_interpreter_arguments(parser)
    command_line.add_result_arguments(parser)
    options = parser.parse_args(arguments)
    options.load = options.load or [parse_load(text) for text in DEFAULT_LOADS]
    proxies.check_interpreter(parser, options)
    command_line.check_plot(parser, options.plot)
    return options


def main(options: argparse.Namespace) -> int:
    """0, or 1 when a load did not hold."""
    measured_on = machine.describe(options.python, environment(options.python_path))
    descriptors = raise_descriptor_limit()
    print(machine.sentence(measured_on), descriptors, sep="\n", file=sys.stderr, flush=True)
    proxy = options.proxy or next(proxies.ours(options.python, options.python_path))
    results = []
    for asked in options.load:
        load, found = search(asked, proxy, options)
        told = {"load": str(load), "asked": str(asked), "holds": holds(found, options.limit_ms)}
        results.append({**told, "limit": limit_of(found), **found})
    print(machine.sentence(measured_on), descriptors, result_table(results), sep="\n\n", end="\n\n")
    line = {"benchmark": "streams", "seconds": options.seconds, "machine": measured_on, "descriptors": descriptors}
    line["loads"] = results
    command_line.write_results(options.output, line)
    if options.plot is not None:
        from load_figures import draw_streams

        draw_streams(results, options.limit_ms, machine.sentence(measured_on), options.plot)
    command_line.write_json_line(options.json, line)
    return int(not all(each["holds"] and each["load"] == each["asked"] for each in results))


if __name__ == "__main__":
    try:
        sys.exit(main(parse_arguments()))
    except KeyboardInterrupt:
        sys.exit(command_line.INTERRUPTED)
    except RequestFailed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
