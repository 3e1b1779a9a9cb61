#!/usr/bin/env python3
"""Whether a proxy keeps its memory and its descriptors through a long mixed load.

    benchmarks/endurance.py --requests 100000
    benchmarks/endurance.py --requests 2000000 --output F.json --plot F.png

Plays JSON and SSE chats, requests that the client leaves midway and requests whose engine refuses, fails or cuts the
connection (`mixed_client.py`, `unruly_engine.py`) through one proxy in front of a prefill and two decode engines, and
looks at the proxy's resident memory and open descriptors every second. The store of conversations is small
(`--conversations`), so that it is full long before the second half. Told are: whether memory is flat over the second
half of the requests (highest over lowest within `--flat-percent`), whether descriptors are back where they were before
the load within `--settle-s`, whether anything is still counted as in flight, and how requests of each kind ended.

The load is bounded by `--requests`; 2,000,000 take about an hour on two cores. Linux only. Exit status 1 when one of
the three is not so, or a plain request failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import command_line
import machine
import proxies
from chat_client import RequestFailed
from command_line import at_least, table
from proxy_runs import cpu_seconds, descriptors, environment, resident_kb, running_proxy, serving, stop

HERE: Final = Path(__file__).resolve().parent
PLAIN: Final = ("JSON", "SSE")
GONE: Final = ("ppd_inflight", "ppd_buffered_bytes")
"""Gauges of ours that must be 0 when nothing is asked any more; a proxy that has none of them is not held to it."""
TELL_S: Final = 10.0
SETTLED_S: Final = 2.0


class Look(NamedTuple):
    """The proxy after so many requests."""

    requests: int
    seconds: float
    resident_kb: int
    descriptors: int


def left_over(url: str) -> float:
    """The sum of the gauges of what is in flight, as the proxy's own metrics tell it."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(GONE))


def follow(
    client: subprocess.Popen[str], look: Callable[[int], Look], requests: int
) -> tuple[list[Look], dict[str, Any]]:
    """Looks at the proxy whenever the client says how far it is, and what it found in the end."""
    looks: list[Look] = []
    told_at = 0.0
    assert client.stdout is not None
    for line in client.stdout:
        word, _, rest = line.partition(" ")
        if word == "result":
            found: dict[str, Any] = json.loads(rest)
            looks.append(look(found["requests"]))
            return looks, found
        looks.append(look(int(rest)))
        if looks[-1].seconds >= told_at:
            told_at = looks[-1].seconds + TELL_S
            print(progress(looks[-1], requests), file=sys.stderr, flush=True)
    raise RequestFailed(f"the client ended with status {client.wait()}")


def progress(now: Look, requests: int) -> str:
    per_s = now.requests / now.seconds if now.seconds else 0.0
    left = f"{(requests - now.requests) / per_s / 60:.0f} min left" if per_s else "begins"
    share = f"{now.requests:,} of {requests:,} ({100 * now.requests / requests:.0f} %), {per_s:,.0f}/s"
    return f"{share}, {now.resident_kb / 1024:.1f} MB, {now.descriptors} descriptors, {left}"


def settle(pid: int, start: int, limit_s: float) -> int:
    """Descriptors once they are back at `start`, or after `limit_s`."""
    ends_at = time.monotonic() + limit_s
    while (now := descriptors(pid)) > start and time.monotonic() < ends_at:
        time.sleep(0.5)
    return now


def kinds_of_descriptors(pid: int) -> dict[str, int]:
    """What the open descriptors are: sockets, pipes, files."""
    counts: dict[str, int] = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            kind = each.readlink().as_posix().partition(":")[0]
        except OSError:
            continue
        kind = "file" if kind.startswith("/") else kind
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def measure(options: argparse.Namespace) -> dict[str, Any]:
    ours = next(proxies.ours(options.python, options.python_path))
    own = f"--decode {{second}} --max-conversations {options.conversations}"
    proxy = options.proxy or replace(ours, command=f"{ours.command} {own}")
    script = str(HERE / "unruly_engine.py")
    with ExitStack() as stack:
        engines = {}
        for name, role in (("prefill", "prefill"), ("decode", "decode"), ("second", "decode")):
            engines[name] = stack.enter_context(serving([sys.executable, script, "--role", role]))[1]
        pid, url = stack.enter_context(running_proxy(proxy, engines))
        time.sleep(SETTLED_S)
        start = descriptors(pid)
        address = url.removeprefix("http://")
        command = [sys.executable, str(HERE / "mixed_client.py"), address, "--requests", str(options.requests)]
        command += ["--connections", str(options.connections), "--seed", str(options.seed)]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        stack.callback(stop, client)
        begun_at, used_s = time.monotonic(), cpu_seconds(pid)

        def look(requests: int) -> Look:
            return Look(requests, time.monotonic() - begun_at, resident_kb(pid), descriptors(pid))

        looks, found = follow(client, look, options.requests)
        used_s = cpu_seconds(pid) - used_s
        end = settle(pid, start, options.settle_s)
        return {
            **found,
            **memory(looks),
            "seconds": looks[-1].seconds,
            "cpu_ms_per_request": 1e3 * used_s / found["requests"],
            "descriptors_start": start,
            "descriptors_most": max(each.descriptors for each in looks),
            "descriptors_end": end,
            "descriptors_left": kinds_of_descriptors(pid) if end > start else {},
            "still_in_flight": left_over(url) if options.proxy is None else 0.0,
            "looks": [each._asdict() for each in looks],
        }


def memory(looks: Sequence[Look]) -> dict[str, float]:
    """Resident memory over the second half of the requests, and by how much it moves there, in percent of the least:
    `spread` is the highest over the lowest, `growth` the mean of its last quarter over the mean of its first."""
    half = [each.resident_kb for each in looks if each.requests >= looks[-1].requests / 2]
    quarter = max(1, len(half) // 4)
    first, last = sum(half[:quarter]) / quarter, sum(half[-quarter:]) / quarter
    low, high = min(half), max(half)
    return {
        "resident_kb_low": low,
        "resident_kb_high": high,
        "spread_percent": 100 * (high - low) / low,
        "growth_percent": 100 * (last - first) / low,
    }


def verdicts(found: Mapping[str, Any], flat_percent: float) -> dict[str, bool]:
    """What has to be so, and whether it is."""
    outcomes = found["outcomes"]
    return {
        f"memory flat within {flat_percent:g} % over the second half": found["spread_percent"] <= flat_percent,
        "descriptors back at the start": found["descriptors_end"] <= found["descriptors_start"],
        "nothing still in flight": not found["still_in_flight"],
        "every plain request answered": all(set(outcomes[kind]) <= {"200"} for kind in PLAIN),
    }


def outcome_table(outcomes: Mapping[str, Mapping[str, int]]) -> str:
    rows = [
        [kind, f"{sum(ends.values()):,}", ", ".join(f"{end}: {count:,}" for end, count in sorted(ends.items()))]
        for kind, ends in outcomes.items()
    ]
    return table(["Requests", "Number", "How they ended"], rows)


def figure_table(found: Mapping[str, Any]) -> str:
    """The proxy's memory, descriptors and CPU."""
    headers = ["Requests", "Minutes", "CPU ms per request", "MB in the second half", "Spread (%)", "Growth (%)"]
    headers += ["Descriptors: start", "most", "end"]
    megabytes = f"{found['resident_kb_low'] / 1024:.1f} to {found['resident_kb_high'] / 1024:.1f}"
    row = [f"{found['requests']:,}", f"{found['seconds'] / 60:.1f}", f"{found['cpu_ms_per_request']:.3f}", megabytes]
    row += [f"{found['spread_percent']:.2f}", f"{found['growth_percent']:.2f}"]
    row += [str(found[f"descriptors_{when}"]) for when in ("start", "most", "end")]
    return table(headers, [row])


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--requests", type=at_least(100), default=2_000_000, help="in all (default 2000000)")
    add("--connections", type=at_least(1), default=32, help="clients at a time (default 32)")
    add("--conversations", type=at_least(1), default=2000, help="that the proxy keeps at most (default 2000)")
    add("--flat-percent", type=float, default=3.0, help="by which memory may move over the second half (default 3)")
    add("--settle-s", type=at_least(0), default=30, help="in which descriptors must be back (default 30)")
    add("--seed", type=int, default=0, help="of what is drawn (default 0)")
    add("--proxy", type=proxies.parse_proxy, metavar="NAME=COMMAND", help="another proxy than ours; also {second}")
    proxies.add_interpreter_arguments(parser)
    command_line.add_result_arguments(parser)
    options = parser.parse_args(arguments)
    proxies.check_interpreter(parser, options)
    command_line.check_plot(parser, options.plot)
    return options


def main(options: argparse.Namespace) -> int:
    """0, or 1 when memory grew, a descriptor or a request was left, or a plain request failed."""
    measured_on = machine.describe(options.python, environment(options.python_path))
    print(machine.sentence(measured_on), file=sys.stderr, flush=True)
    found = measure(options)
    told = verdicts(found, options.flat_percent)
    print(machine.sentence(measured_on), outcome_table(found["outcomes"]), figure_table(found), sep="\n\n", end="\n\n")
    for what, is_so in told.items():
        print(f"{'yes' if is_so else 'NO '} {what}")
    if found["descriptors_left"]:
        print(f"left open: {found['descriptors_left']}")
    line = {"benchmark": "endurance", "machine": measured_on, "verdicts": told, **found}
    command_line.write_results(options.output, line)
    if options.plot is not None:
        from load_figures import draw_endurance

        draw_endurance(found, machine.sentence(measured_on), options.plot)
    command_line.write_json_line(options.json, {name: value for name, value in line.items() if name != "looks"})
    return int(not all(told.values()))


if __name__ == "__main__":
    try:
        sys.exit(main(parse_arguments()))
    except KeyboardInterrupt:
        sys.exit(command_line.INTERRUPTED)
    except RequestFailed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
