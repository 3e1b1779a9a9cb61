"""The command line of the simulated engine: flags to an `EngineConfig`, then serve until INT or TERM."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from ppd_shell.settings import ConfigError
from ppd_sim.config import EngineConfig, HandoffKind, load
from ppd_sim.engine import running_engine
from ppd_sim.timing import TimingConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `simulate`."""
    add = parser.add_argument
    add("--role", choices=["prefill", "decode", "aggregated"], required=True, help="what the engine is for")
    add("--port", type=int, required=True, help="HTTP port; 0 picks a free one")
    add("--host", help="address to listen on (127.0.0.1)")
    add("--handoff", choices=["nixl", "p2p_nccl", "none"], help="how KV moves (p2p_nccl with --announce, else nixl)")
    add("--announce", metavar="HOST:PORT", help="ZMQ ROUTER of a proxy to announce to, as P2pNccl engines do")
    add("--kv-port", type=int, help="port of the engine's KV address; 0 picks a free one")
    add("--ppd", dest="is_ppd", action="store_const", const=True, help="with our connector (P2pNccl), and announce it")
    add("--model", dest="model_name", help="served model name (sim)")
    add("--adapter", dest="adapters", action="append", help="served adapter name, repeatable")
    add("--max-model-len", type=int, help="longest prompt plus answer, tokens (32768)")
    add("--block-tokens", type=int, help="tokens per KV block (16)")
    add("--cache-blocks", type=int, help="capacity of the KV cache, blocks (65536)")
    add("--no-prefix-cache", dest="has_prefix_cache", action="store_const", const=False, help="keep no prefixes")
    add("--kv-lease-s", type=float, help="how long a prefill engine keeps blocks nobody pulls, seconds (30)")
    add("--metric-names", choices=["new", "old", "both"], help="vLLM metric names of new or old releases (new)")
    add("--api-key", help="bearer key that /v1 requests must carry")
    add("--seed", type=int, help="seed of the weights: engines that shall agree need the same (0)")
    add("--prefill-tokens-per-s", type=float, help="prefill rate, 0 takes no time (0)")
    add("--append-prefill-tokens-per-s", type=float, help="prefill rate behind cached tokens (the prefill rate)")
    add("--prefill-fixed-ms", type=float, help="fixed time of every prefill (0)")
    add("--decode-ms-per-token", type=float, help="time between two tokens (0)")
    add("--transfer-bytes-per-s", type=float, help="rate of KV transfers, 0 takes no time (0)")
    add("--transfer-fixed-ms", type=float, help="fixed time of every KV transfer (0)")
    add("--kv-bytes-per-token", type=int, help="size of one token's KV (131072)")
    add("--slots", type=int, help="requests that run at once, 0 is no limit (0)")
    add("--config", type=Path, metavar="FILE.toml", help="settings by name, tables [model] and [timing]; flags win")


def config_from(args: argparse.Namespace) -> EngineConfig:
    """The configuration of these flags over the file of `--config`; `ConfigError` names every mistake."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    if "adapters" in given:
        given["adapters"] = tuple(given["adapters"])
    handoff: HandoffKind = "p2p_nccl" if "announce" in given or "kv_port" in given else "nixl"
    config = EngineConfig(role=args.role, handoff=handoff, kv_port=args.kv_port, keeps_requests=False)
    if args.config is not None:
        config = load(args.config, config)
    timing = {name: given[name] for name in TimingConfig.__dataclass_fields__ if name in given}
    top = {name: given[name] for name in EngineConfig.__dataclass_fields__ if name in given and name != "seed"}
    model = replace(config.model, seed=given["seed"]) if "seed" in given else config.model
    return replace(config, **top, timing=replace(config.timing, **timing), model=model)


def run(args: argparse.Namespace) -> int:
    """Serve until INT or TERM; 1 when the engine died, 2 when the configuration is wrong."""
    try:
        config = config_from(args)
    except ConfigError as error:
        sys.stderr.write(f"simulate: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"simulate: --config: {error}\n")
        return 2
    return uvloop.run(_serve(config))


async def _serve(config: EngineConfig) -> int:
    loop = asyncio.get_running_loop()
    async with running_engine(config) as engine:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, engine.ended.set)
        sys.stdout.write(f"listening on {engine.url}\n")
        sys.stdout.flush()
        await engine.ended.wait()
    return 1 if engine.has_died else 0


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    sys.exit(run(_parser.parse_args()))
