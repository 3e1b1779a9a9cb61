#!/usr/bin/env python3
"""The longest time for which one input stops the proxy's event loop, and the memory it takes.

    benchmarks/loop_steps.py
    benchmarks/loop_steps.py --checkout before=../older-checkout --checkout after=. --only metrics

For every input a proxy is started, in front of engines that say what the input wants, with a probe on its own event
loop: a timer of 1 ms, whose delay is the length of the loop's step. The step's CPU time is given beside it, since on a
busy machine the rest is waiting. Each input gets `--limit-s`; what it has done to the loop until then counts. A figure
in brackets means that the loop had not come back by then. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from loop_inputs import INPUTS, MB, Bench, Engine, Input, said

START_S: Final = 60.0

PROBE: Final = """
import asyncio, json, sys, time
from ppd_proxy.runtime import runtime
from ppd_proxy.cli.main import main

start = runtime.Runtime.start

async def probed(self):
    await start(self)
    loop = asyncio.get_running_loop()
    longest = [0.0, 0.0]
    last = [time.perf_counter(), time.thread_time()]

    def tick():
        now = [time.perf_counter(), time.thread_time()]
        step = now[0] - last[0] - 0.001
        if step > longest[0]:
            longest[:] = [step, now[1] - last[1]]
        last[:] = now
        loop.call_later(0.001, tick)

    async def tell(reader, writer):
        writer.write(json.dumps(longest).encode())
        longest[:] = [0.0, 0.0]
        writer.close()

    self.probe = await asyncio.start_server(tell, "127.0.0.1", int(sys.argv.pop()))
    tick()

runtime.Runtime.start = probed
sys.exit(main(sys.argv[1:-1]))
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.asynccontextmanager
async def started(checkout: Path, probe_port: int) -> AsyncIterator[tuple[Bench, int]]:
    engine = Engine()
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, limit=64 * MB)
    engine.port = server.sockets[0].getsockname()[1]
    prefill = Engine(answer=said("Hi"))
    second = await asyncio.start_server(prefill.serve, "127.0.0.1", 0, limit=64 * MB)
    prefill.port = second.sockets[0].getsockname()[1]
    port = free_port()
    command = (
        f"serve --host 127.0.0.1 --port {port} --discovery-port 0 --handoff none --log-level error "
        f"--scrape-interval-s 1 --prefill http://127.0.0.1:{prefill.port} "
        f"--decode http://127.0.0.1:{engine.port}"
    )
    paths = os.pathsep.join(str(checkout / part) for part in ("proxy", "connector_patches"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROBE, *command.split(), str(probe_port),
        env={**os.environ, "PYTHONPATH": paths}, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(START_S):
            while await told(probe_port) is None:
                if process.returncode is not None:
                    raise SystemExit(f"the proxy of {checkout} ended with {process.returncode}")
                await asyncio.sleep(0.05)
        yield Bench(port, engine), process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()
        for each in (server, second):
            each.close()
        for writer in [*engine.writers, *prefill.writers]:
            writer.transport.abort()


async def told(port: int) -> tuple[float, float] | None:
    """The longest step since the last call: seconds, and of these CPU seconds; None while nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return None
    wall_s, cpu_s = json.loads(await reader.read())
    writer.close()
    return wall_s, cpu_s


def peak_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


async def measure(checkout: Path, run: Input, limit_s: float) -> str:
    async with started(checkout, port := free_port()) as (bench, pid):
        await asyncio.sleep(0.3)
        await told(port)
        before_mb = peak_mb(pid)
        loop = asyncio.get_running_loop()
        since = loop.time()
        status = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                first = await run(bench)
                status = first.split(b" ")[1].decode() if first.startswith(b"HTTP") else ""
        try:
            async with asyncio.timeout(limit_s):
                wall_s, cpu_s = await told(port) or (0.0, 0.0)
            figure = f"{wall_s * 1e3:.0f} ({cpu_s * 1e3:.0f})"
        except TimeoutError:
            figure = f"[{(loop.time() - since) * 1e3:.0f}]"
        return f"{figure:>14} {peak_mb(pid) - before_mb:+5} MB {status:>4}"


async def compare(checkouts: Mapping[str, Path], only: str, limit_s: float) -> None:
    print(f"{'longest step, ms (CPU)':34}" + "".join(f"{name:>30}" for name in checkouts), flush=True)
    for name, run in INPUTS.items():
        if only in name:
            row = [await measure(checkout, run, limit_s) for checkout in checkouts.values()]
            print(f"{name:34}" + "".join(f"{cell:>30}" for cell in row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", action="append", metavar="NAME=DIR", help="a source tree (default: this one)")
    parser.add_argument("--only", default="", help="inputs whose name contains this")
    parser.add_argument("--limit-s", type=float, default=30.0, help="for each input")
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    named = [text.partition("=") for text in options.checkout or [f"now={here}"]]
    checkouts = {name: Path(path).resolve() for name, _, path in named}
    asyncio.run(compare(checkouts, options.only, options.limit_s))


if __name__ == "__main__":
    main()
