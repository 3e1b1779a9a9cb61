"""The command line of scripts/cluster.py: flags to a cluster, a conversation through it, then serve until a signal."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import FrameType

from cluster import ROOT, Cluster, ClusterSpec, EngineSpec, Role, split_engines
from processes import ClusterError

CHECK_S = 1.0


class Stopped(BaseException):
    """INT or TERM arrived."""


def stop_on_signal(number: int, frame: FrameType | None) -> None:
    """Leave the cluster's `with` block; a second signal must not cut the clean-up short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cluster.py",
        description="Start engines and the proxy, run one conversation, then serve until INT or TERM.",
        epilog="What follows -- is handed to ppd-proxy serve.",
    )
    add = parser.add_argument
    add("--engine", choices=["vllm", "simulated"], default="vllm", help="real vLLM on CPU, or simulated (default vllm)")
    add("--mode", choices=["pd", "ppd"], default="ppd", help="the proxy's mode (default ppd)")
    add("--prefill", type=int, default=1, metavar="N", help="number of prefill engines (default 1)")
    add("--decode", type=int, default=1, metavar="N", help="number of decode engines (default 1)")
    add("--aggregated", type=int, default=0, metavar="N", help="number of unsplit engines (default 0)")
    for name, port in (("prefill", 8100), ("decode", 8200), ("aggregated", 8300)):
        add(f"--{name}-port", type=int, default=port, metavar="P", help=f"first {name} port, 0: free (default {port})")
    add("--proxy-port", type=int, default=10001, metavar="P", help="the proxy's port, 0: free (default 10001)")
    add("--model", default="tiny", help="tiny, small, tiny-peaked, small-peaked or a directory (default tiny)")
    add("--dtype", default="bfloat16", choices=["bfloat16", "float32"], help="of real engines (default bfloat16)")
    add(
        "--connector", choices=["nixl", "ppd"], default="nixl", help="moves KV between real engines (default nixl)"
    )
    add(
        "--kv-setting",
        action="append",
        default=[],
        type=setting,
        metavar="KEY=VALUE",
        help="key of the ppd connector's kv_connector_extra_config, repeatable",
    )
    add("--block-tokens", type=int, metavar="N", help="KV block size of real engines (default: vLLM's)")
    add("--no-prefill-cache", action="store_true", help="switch prefix caching off on prefill engines")
    add("--turns", type=int, default=5, metavar="N", help="turns of the conversation, 0: none (default 5)")
    add("--once", action="store_true", help="stop after the conversation; exit status 1 if it failed")
    own, proxy_args = split_at_dashes(sys.argv[1:])
    arguments = parser.parse_args(own)
    arguments.proxy_args = proxy_args
    return arguments


def setting(text: str) -> tuple[str, str]:
    """Read `KEY=VALUE`."""
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"{text!r} must be KEY=VALUE")
    return key, value


def split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line at its first `--`."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def spec_from(arguments: argparse.Namespace) -> ClusterSpec:
    """The cluster that these flags describe."""
    counts: dict[Role, int] = {
        "prefill": arguments.prefill,
        "decode": arguments.decode,
        "aggregated": arguments.aggregated,
    }
    next_port: dict[Role, int] = {role: getattr(arguments, f"{role}_port") for role in counts}
    engines: list[EngineSpec] = []
    kv_settings = dict(arguments.kv_setting)
    split = split_engines(**counts, kind=arguments.engine, dtype=arguments.dtype, connector=arguments.connector)
    for engine in split:
        port = next_port[engine.role]
        next_port[engine.role] += 1 if port else 0
        has_cache = engine.role != "prefill" or not arguments.no_prefill_cache
        engines.append(
            replace(
                engine,
                port=port,
                prefix_caching=has_cache,
                kv_settings=kv_settings,
                block_tokens=arguments.block_tokens,
            )
        )
    defaults = ClusterSpec(engines=())
    return replace(
        defaults,
        engines=tuple(engines),
        mode=arguments.mode,
        proxy_port=arguments.proxy_port,
        proxy_args=(*defaults.proxy_args, *arguments.proxy_args),
        model=arguments.model,
    )


def converse(url: str, turns: int) -> int:
    """Run one conversation through the proxy; the exit status of the client."""
    client = ROOT / "scripts" / "test_client.py"
    if not client.exists():
        print(f"no {client}: the proxy serves, but no conversation was run", flush=True)
        return 0
    return subprocess.run([sys.executable, client, "--url", url, "--turns", str(turns)], check=False).returncode


def serve(cluster: Cluster) -> int:
    """Wait for a signal; 1 when something that was started ended by itself."""
    children = [*([cluster.proxy] if cluster.proxy else []), *(engine.child for engine in cluster.engines)]
    while True:
        for child in children:
            if not child.is_running:
                print(child.death_note(), file=sys.stderr)
                return 1
        time.sleep(CHECK_S)


def report(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """0 well or stopped by a signal, 1 could not start, or the conversation failed, or a child died."""
    arguments = parse_arguments()
    signal.signal(signal.SIGINT, stop_on_signal)
    signal.signal(signal.SIGTERM, stop_on_signal)
    try:
        with Cluster(spec_from(arguments), report) as cluster:
            report(f"ready: {cluster.proxy_url}  mode {arguments.mode}  model {cluster.model_name}")
            status = converse(cluster.proxy_url, arguments.turns) if arguments.turns else 0
            if arguments.once:
                return status
            report("serving until INT or TERM")
            return serve(cluster)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Stopped:
        report("stopped")
        return 0
