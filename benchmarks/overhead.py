#!/usr/bin/env python3
"""What a proxy itself costs: CPU time of its processes per turn of five-turn chats, before engines that answer at once.

    benchmarks/overhead.py
    benchmarks/overhead.py --proxy 'ppd=ppd-proxy serve --port {port} ...' --proxy 'other=other-proxy -p {port} ...'

Starts one prefill and one decode engine (instant_engine.py), then every proxy in turn, `--rounds` times, and plays
chats through it with wrk, JSON and streamed. In a command {port}, {prefill} and {decode} stand for the port to listen
on and the engines' URLs, {free_port} for one more free port. Without --proxy: ppd-proxy alone.

Prints medians over the rounds, ratios to the first proxy, and one JSON line. CPU per turn is what to compare: times
also measure wrk and the engines. Figures of different machines or runs do not compare. Linux only; needs wrk.
Exit status 1 when a turn failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import command_line
from chat_client import RequestFailed
from command_line import at_least, table
from estimates import median

HERE: Final = Path(__file__).resolve().parent
OURS: Final = (
    f"ppd-proxy={shlex.quote(sys.executable)} -m ppd_proxy.cli.main serve --host 127.0.0.1 --port {{port}} "
    "--discovery-port 0 --handoff nixl --mode ppd --log-level error --drain-s 0 --prefill {prefill} --decode {decode}"
)
KINDS: Final = ("json", "sse")
START_S: Final = 60.0
STOP_S: Final = 10.0
POLL_S: Final = 0.1
QUESTION: Final = {"model": "instant", "max_tokens": 1, "messages": [{"role": "user", "content": "ready?"}]}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy to measure: its name and its command with placeholders."""

    name: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement of one proxy. `prefill_share` is prefill requests per turn, `failed` counts turns."""

    cpu_ms_per_turn: float
    turns_per_s: float
    p50_ms: float
    p99_ms: float
    prefill_share: float
    failed: int


def parse_proxy(text: str) -> Proxy:
    """An argparse type: NAME=COMMAND."""
    name, separator, command = text.partition("=")
    if not separator or not name or "{port}" not in command:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=COMMAND with {{port}} in the command")
    return Proxy(name, command)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(process: subprocess.Popen[str]) -> None:
    """End a process that leads a session, and what is left of its group."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


@contextmanager
def instant_engine(role: str, chunks: int) -> Iterator[str]:
    """A running engine; its URL."""
    command = [sys.executable, str(HERE / "instant_engine.py"), "--role", role, "--chunks", str(chunks)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise RequestFailed(f"the {role} engine did not start: {' '.join(command)}")
        yield line.split()[-1]
    finally:
        stop(process)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def running_proxy(proxy: Proxy, engines: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """The proxy as a session of its own, once it answers a chat; its process id and URL."""
    port = free_port()
    command = proxy.command
    for name, value in {**engines, "port": str(port), "free_port": str(free_port())}.items():
        command = command.replace(f"{{{name}}}", value)
    process = subprocess.Popen(
        shlex.split(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until_ready(process, command, f"http://127.0.0.1:{port}")
        yield process.pid, f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def wait_until_ready(process: subprocess.Popen[str], command: str, url: str) -> None:
    """Return once a chat is answered 200; RequestFailed with the last reason when that takes too long."""
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(QUESTION).encode())
    request.add_header("content-type", "application/json")
    ends_at = time.monotonic() + START_S
    reason = "no answer"
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            raise RequestFailed(f"ended with status {process.returncode}: {command}")
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            reason = str(error)
        time.sleep(POLL_S)
    raise RequestFailed(f"answered no chat within {START_S:.0f} s ({reason}): {command}")


def cpu_seconds(session: int) -> float:
    """User and system time so far of every process of a session."""
    ticks = 0
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                text = (directory / "stat").read_text()
            except OSError:
                continue
            # The command's name, in parentheses, may hold spaces; what follows it does not.
            fields = text[text.rindex(")") + 2 :].split()
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def completions(engine_url: str) -> int:
    with urllib.request.urlopen(f"{engine_url}/counts", timeout=10) as answer:
        return sum(count for path, count in json.load(answer).items() if "completions" in path)


def play(url: str, seconds: int, kind: str, options: argparse.Namespace) -> dict[str, float]:
    """Chats through a proxy; the figures that conversations.lua prints."""
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{seconds}s", "-s", str(HERE / "conversations.lua"), url]
    own = {"STREAM": str(int(kind == "sse")), "TURNS": str(options.turns), "RUN": str(time.time_ns())}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | own)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return dict(json.loads(line.removeprefix("RESULT ")))
    raise RequestFailed(f"wrk ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")


def measure(session: int, url: str, prefill: str, kind: str, options: argparse.Namespace) -> Sample:
    if options.warmup_seconds:
        play(url, options.warmup_seconds, kind, options)
    cpu_before, prefills_before = cpu_seconds(session), completions(prefill)
    told = play(url, options.seconds, kind, options)
    used_s, turns = cpu_seconds(session) - cpu_before, told["turns"]
    if not turns:
        raise RequestFailed(f"{url} answered nothing in {options.seconds} s")
    return Sample(
        cpu_ms_per_turn=1e3 * used_s / turns,
        turns_per_s=turns / told["seconds"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        prefill_share=(completions(prefill) - prefills_before) / turns,
        failed=int(told["refused"] + told["broken"]),
    )


Samples = dict[str, dict[str, list[Sample]]]
"""By proxy and kind, one per round."""


def run(options: argparse.Namespace) -> Samples:
    samples: Samples = {proxy.name: {kind: [] for kind in KINDS} for proxy in options.proxy}
    with instant_engine("prefill", options.chunks) as prefill, instant_engine("decode", options.chunks) as decode:
        for number in range(options.rounds):
            for proxy in options.proxy:
                with running_proxy(proxy, {"prefill": prefill, "decode": decode}) as (session, url):
                    for kind in KINDS:
                        sample = measure(session, url, prefill, kind, options)
                        samples[proxy.name][kind].append(sample)
                        told = f"{sample.cpu_ms_per_turn:.4f} ms CPU per turn, {sample.turns_per_s:,.0f} turns/s"
                        print(f"round {number + 1} {proxy.name} {kind}: {told}", file=sys.stderr, flush=True)
    return samples


def middle(samples: Sequence[Sample], name: str) -> float:
    return median([getattr(sample, name) for sample in samples])


def summarise(samples: Samples) -> dict[str, dict[str, dict[str, float]]]:
    """Medians over the rounds, the ratio of CPU per turn to the first proxy's, and the sum of failed turns."""
    first = next(iter(samples.values()))
    return {
        name: {
            kind: {
                **{field: round(middle(rounds, field), 4) for field in asdict(rounds[0]) if field != "failed"},
                "ratio": round(middle(rounds, "cpu_ms_per_turn") / middle(first[kind], "cpu_ms_per_turn"), 3),
                "failed": sum(sample.failed for sample in rounds),
            }
            for kind, rounds in kinds.items()
        }
        for name, kinds in samples.items()
    }


def result_table(summary: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    headers = [
        "Proxy",
        "Answers",
        "CPU ms per turn",
        "Ratio",
        "Turns/s",
        "p50 (ms)",
        "p99 (ms)",
        "Prefill share",
        "Failed",
    ]
    rows = [
        [
            name,
            kind.upper(),
            f"{figures['cpu_ms_per_turn']:.4f}",
            f"{figures['ratio']:.2f}",
            f"{figures['turns_per_s']:,.0f}",
            f"{figures['p50_ms']:.2f}",
            f"{figures['p99_ms']:.2f}",
            f"{figures['prefill_share']:.3f}",
            str(figures["failed"]),
        ]
        for kind in KINDS
        for name, kinds in summary.items()
        for figures in [kinds[kind]]
    ]
    return table(headers, rows)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--proxy", type=parse_proxy, action="append", metavar="NAME=COMMAND", help="a proxy to measure, repeatable")
    add("--rounds", type=at_least(1), default=3, help="times every proxy is started and measured (default 3)")
    add("--seconds", type=at_least(1), default=6, help="length of a measurement (default 6)")
    add("--warmup-seconds", type=at_least(0), default=2, help="chats before a measurement (default 2)")
    add("--connections", type=at_least(1), default=32, help="requests in flight, at most 64 (default 32)")
    add("--turns", type=at_least(1), default=5, help="turns of a chat (default 5)")
    add("--chunks", type=at_least(2), default=64, help="events of a streamed answer (default 64)")
    add("--json", metavar="FILE", default="-", help="the summary as one JSON line (default -: standard output)")
    options = parser.parse_args(arguments)
    options.proxy = options.proxy or [parse_proxy(OURS)]
    names = [proxy.name for proxy in options.proxy]
    if len(set(names)) < len(names):
        parser.error(f"--proxy: give each proxy its own name, not {', '.join(names)}")
    if options.connections > 64:
        parser.error(f"--connections: {options.connections} is more than the 64 chats that advance side by side")
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: apt install wrk, or https://github.com/wg/wrk")
    if not Path("/proc/self/stat").exists():
        parser.error("CPU time is read from /proc, which this system does not have")
    return options


def main(options: argparse.Namespace) -> int:
    """0, or 1 when a turn failed or a proxy did not start."""
    try:
        samples = run(options)
    except RequestFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    summary = summarise(samples)
    print(result_table(summary), end="\n\n")
    chosen = {name: getattr(options, name) for name in ("rounds", "seconds", "connections", "turns", "chunks")}
    line: dict[str, Any] = {"benchmark": "overhead", "options": chosen, "proxies": summary}
    line["rounds"] = {
        name: {kind: [asdict(sample) for sample in each] for kind, each in kinds.items()}
        for name, kinds in samples.items()
    }
    command_line.write_json_line(options.json, line)
    return int(any(figures["failed"] for kinds in summary.values() for figures in kinds.values()))


if __name__ == "__main__":
    try:
        sys.exit(main(parse_arguments()))
    except KeyboardInterrupt:
        sys.exit(command_line.INTERRUPTED)
