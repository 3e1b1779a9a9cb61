#!/usr/bin/env python3
"""What batch-compare itself costs: CPU time per request, before two engines that answer at once.

    benchmarks/acc_cpu.py [--samples 1000] [--answer-tokens 64] [--concurrency 8] [--peer PATH/bin/xpyd-acc]

Starts both engines, runs `ppd-acc batch-compare` on a dataset as a process of its own, and divides its whole CPU time
(user and system, from its start to its end, reports written) by the requests that the engines counted. Every answer has
token ids, logprobs and five likeliest tokens per token. With --peer the published tool does the same beside it, in
turns, without its cache. Prints medians over the rounds and one JSON line. Absolute figures move from machine to
machine: compare ratios within one run. Exit status 1 when a run did not compare every sample.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from command_line import at_least, table
from estimates import median
from instant_engine import Connection, Script, json_response
from scored_answers import chat_answer, score_answer

HERE: Final = Path(__file__).resolve().parent
PROMPT_TOKENS: Final = 24
TOPS: Final = 5
STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one tool. Times in seconds; `samples` is what its report says it compared, `peak_mb` its memory."""

    tool: str
    requests: int
    samples: int
    cpu_s: float
    wall_s: float
    peak_mb: float

    @property
    def cpu_ms_per_request(self) -> float:
        return self.cpu_s / self.requests * 1000


async def serve(tokens: int) -> None:
    """Prints its address and answers until INT or TERM."""
    loop = asyncio.get_running_loop()
    counts: Counter[str] = Counter()
    chat = chat_answer(PROMPT_TOKENS, tokens, tops=TOPS, text="word " * tokens)
    script = Script(json_response(chat), (), score=json_response(score_answer(PROMPT_TOKENS, tokens, tops=TOPS)))
    server = await loop.create_server(lambda: Connection(script, counts), "127.0.0.1", 0, backlog=4096)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()
    server.close()


@contextmanager
def engine(tokens: int) -> Iterator[str]:
    """A started engine's URL; stopped at the end."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", "--answer-tokens", str(tokens)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(STOP_S)


def requests_of(urls: Sequence[str]) -> int:
    """Generations and scores that the engines have answered so far."""
    total = 0
    for url in urls:
        with urllib.request.urlopen(f"{url}/counts", timeout=STOP_S) as told:
            counts = json.load(told)
        total += sum(number for path, number in counts.items() if path == "/score" or path.endswith("completions"))
    return total


def run_once(tool: str, command: Sequence[str], report: Path, urls: Sequence[str], folder: Path) -> Run:
    """Runs it to its end; its CPU time is the kernel's count for the process."""
    before, started_at = requests_of(urls), time.perf_counter()
    with (folder / f"{tool}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - started_at
    if not report.exists():
        raise SystemExit(f"{tool} ended with {process.returncode}:\n{(folder / f'{tool}.log').read_text()[-2000:]}")
    told: Mapping[str, Any] = json.loads(report.read_bytes())
    compared = told["totals"]["compared"] if "totals" in told else told["total_samples"]
    return Run(tool, requests_of(urls) - before, compared, used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss / 1024)


def commands_of(args: argparse.Namespace, urls: Sequence[str], folder: Path) -> Iterator[tuple[str, list[str], Path]]:
    """Name, command and report of each tool."""
    shared = ["--baseline", urls[0], "--target", urls[1], "--dataset", str(folder / "prompts.jsonl")]
    shared += ["--concurrency", str(args.concurrency), "--max-tokens", str(args.answer_tokens)]
    ours = folder / "ours.json"
    program = [sys.executable, "-m", "ppd_acc.cli.main", "batch-compare"]
    yield "ppd-acc", [*program, *shared, "--output", str(ours)], ours
    if args.peer is not None:
        theirs = folder / "peer.json"
        yield "peer", [str(args.peer), "batch-compare", *shared, "--json", str(theirs), "--no-cache"], theirs


def measure(args: argparse.Namespace) -> list[Run]:
    runs = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lines = (json.dumps({"id": f"p{n}", "prompt": f"Tell me story number {n}."}) for n in range(args.samples))
        (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        urls = [stack.enter_context(engine(args.answer_tokens)) for _ in range(2)]
        for _ in range(args.rounds):
            for tool, command, report in commands_of(args, urls, folder):
                report.unlink(missing_ok=True)
                runs.append(run_once(tool, command, report, urls, folder))
    return runs


def tell(runs: Sequence[Run]) -> None:
    rows = []
    summary: dict[str, Any] = {}
    for tool in dict.fromkeys(run.tool for run in runs):
        own = [run for run in runs if run.tool == tool]
        cpu_ms = median([run.cpu_ms_per_request for run in own])
        per_s = median([run.requests / run.wall_s for run in own])
        summary[tool] = {"cpu_ms_per_request": cpu_ms, "requests_per_s": per_s, "runs": [asdict(run) for run in own]}
        peak_mb = max(run.peak_mb for run in own)
        rows.append([tool, str(own[0].requests), f"{cpu_ms:.3f}", f"{per_s:.0f}", f"{peak_mb:.0f}"])
    print(table(["tool", "requests", "CPU ms per request", "requests per s", "peak MB"], rows))
    if len(summary) > 1:
        print(f"ratio {summary['peer']['cpu_ms_per_request'] / summary['ppd-acc']['cpu_ms_per_request']:.1f}")
    print(json.dumps(summary))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--samples", type=at_least(1), default=1000, help="prompts in the dataset (default %(default)s)")
    add("--answer-tokens", type=at_least(1), default=64, help="tokens per answer (default %(default)s)")
    add("--concurrency", type=at_least(1), default=8, help="requests at once, per engine (default %(default)s)")
    add("--rounds", type=at_least(1), default=1, help="runs of each tool, in turns (default %(default)s)")
    add("--peer", type=Path, metavar="PATH", help="the published xpyd-acc, to be measured beside ours")
    add("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        uvloop.run(serve(args.answer_tokens))
        return 0
    runs = measure(args)
    tell(runs)
    return 0 if all(run.samples == args.samples for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
