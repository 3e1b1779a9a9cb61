"""What scripts/demo.sh shows once the environment is there: a cluster, a conversation per mode, the comparison."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from types import FrameType

from cluster import ROOT, Cluster, ClusterSpec, EngineSpec
from processes import ClusterError
from serve_cluster import Stopped, serve, stop_on_signal

# About what a small GPU and a 10 GbE link do with an 8 B model.
SMALL_GPU = (
    *("--prefill-tokens-per-s", "8000", "--prefill-fixed-ms", "15", "--decode-ms-per-token", "12"),
    *("--transfer-bytes-per-s", "1.1e9", "--transfer-fixed-ms", "10", "--kv-bytes-per-token", "131072"),
)
SIMULATED_NOTE = """\
These engines are simulated: their times come from a model of a small GPU (8,000 prefill tokens/s, 12 ms per output
token, 1.1 GB/s between engines). What is real is the proxy and its decisions. The times are no result about vLLM;
scripts/demo.sh --engine vllm measures real engines."""
VLLM_NOTE = """\
These engines are real vLLM on this machine's CPU with an 82 M parameter model of random weights. Times on a CPU shared
with other work vary; the interval tells how much."""
MODES = (
    ("pd", "every turn: prefill engine, KV handoff, decode engine"),
    ("ppd", "turn 1 as in pd, later turns straight to the decode engine that holds the conversation"),
)
CLIENT_LIMIT_S = 1800.0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo.sh", description=__doc__)
    add = parser.add_argument
    add("--engine", choices=["simulated", "vllm"], default="simulated", help="kind of engines (default simulated)")
    add("--keep", action="store_true", help="leave it running afterwards, until INT or TERM")
    add("--conversations", type=int, metavar="N", help="conversations per mode to compare (default 3, with vllm 6)")
    add("--turns", type=int, default=5, metavar="N", help="turns of a conversation (default 5)")
    add("--output-tokens", type=int, metavar="N", help="tokens per answer (default 30, with vllm 96)")
    add("--no-prefix-caching-on-prefill", action="store_true", help="the prefill engine computes every prompt whole")
    add("--connector", choices=["nixl", "ppd"], default="nixl", help="moves KV between real engines (default nixl)")
    add("--dtype", choices=["bfloat16", "float32"], default=fast_dtype(), help="of real engines (default %(default)s)")
    add("--plot", type=Path, metavar="FILE", help="draw the comparison (.png or .svg)")
    add("--output", type=Path, metavar="FILE", help="write everything that was measured, as JSON")
    add("--json", metavar="FILE", default=os.devnull, help="write the summary as one JSON line; - prints it")
    options = parser.parse_args()
    is_real = options.engine == "vllm"
    options.conversations = options.conversations or (6 if is_real else 3)
    options.output_tokens = options.output_tokens or (96 if is_real else 30)
    return options


def fast_dtype() -> str:
    """bfloat16 where the CPU computes in it; elsewhere vLLM emulates it, several times slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "float32"
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def spec_from(options: argparse.Namespace) -> ClusterSpec:
    """One prefill engine, two simulated or one real decode engine, and the proxy, all on free ports."""
    if options.engine == "vllm":
        engine = EngineSpec(role="decode", kind="vllm", dtype=options.dtype, connector=options.connector)
        decode = [engine]
    else:
        engine = EngineSpec(role="decode", kind="simulated", extra_args=SMALL_GPU)
        decode = [engine, engine]
    prefill = replace(engine, role="prefill", prefix_caching=not options.no_prefix_caching_on_prefill)
    return ClusterSpec(engines=(prefill, *decode), model="small")


def say(text: str) -> None:
    print(text, flush=True)


def run(script: str, *arguments: str) -> None:
    """Run one of the repository's scripts to its end; `ClusterError` when it fails. A signal ends it too."""
    with subprocess.Popen([sys.executable, ROOT / script, *arguments]) as child:
        try:
            status = child.wait(CLIENT_LIMIT_S)
        except BaseException:
            child.terminate()
            raise
    if status:
        raise ClusterError(f"{script} ended with status {status}")


def show(cluster: Cluster, options: argparse.Namespace) -> None:
    """A conversation in each mode, then the comparison."""
    url = cluster.proxy_url
    for mode, meaning in MODES:
        say(f"\n== A conversation in mode {mode} ({meaning})\n")
        urllib.request.urlopen(urllib.request.Request(f"{url}/mode/{mode}", method="POST"), timeout=30).close()
        run("scripts/test_client.py", "--url", url, "--turns", str(options.turns))
    say(f"\n== The comparison: {options.conversations} conversations per mode, interleaved; turn 1 about 1,500 tokens")
    flags = ["--url", url, "--turns", str(options.turns), "--conversations", str(options.conversations)]
    flags += ["--output-tokens", str(options.output_tokens)]
    flags += ["--json", str(options.json)]
    for name in ("plot", "output"):
        if getattr(options, name):
            flags += [f"--{name}", str(getattr(options, name))]
    run("benchmarks/compare_pd_ppd.py", *flags)
    say(SIMULATED_NOTE if options.engine == "simulated" else VLLM_NOTE)


def show_addresses(cluster: Cluster) -> None:
    url = cluster.proxy_url
    say(f"\n== Running until INT or TERM\n\nOpenAI base URL   {url}/v1   model {cluster.model_name}")
    for path in ("/mode", "/conversations", "/engines", "/metrics"):
        say(f"{path:<17} {url}{path}")
    for engine in cluster.engines:
        say(f"{engine.spec.role + ' engine':<17} {engine.url}")
    say(f"\n.venv/bin/python benchmarks/compare_pd_ppd.py --url {url} --turns 5 --output-tokens 30")


def stop_politely(number: int, frame: FrameType | None) -> None:
    say("\ndemo: stopping")
    stop_on_signal(number, frame)


def main() -> int:
    """0 shown (or, once shown, stopped); 130 stopped before; 1 something failed. Nothing is left running."""
    options = parse_arguments()
    started_at = time.monotonic()
    is_shown = False
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_politely)
    try:
        say(f"== Starting {options.engine} engines and the proxy\n")
        with Cluster(spec_from(options), say) as cluster:
            show(cluster, options)
            is_shown = True
            say(f"\ndemo: done in {time.monotonic() - started_at:.0f} s")
            if options.keep:
                show_addresses(cluster)
                return serve(cluster)
            return 0
    except ClusterError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except Stopped:
        return 0 if is_shown else 130


if __name__ == "__main__":
    sys.exit(main())
