"""Runs a command of ppd-acc in the test's own event loop, against engines that run there, too."""

from __future__ import annotations

import argparse
import inspect
import io
import shlex

from rich.console import Console

from ppd_proxy.acc.command import Command, Context, Result
from ppd_proxy.acc.settings import Settings
from ppd_proxy.sim.config import EngineConfig
from ppd_proxy.sim.model import ModelConfig

NOISE_NATS = 0.02


def engine_config(*, engine_noise_nats: float = 0.0, seed: int = 0, **settings) -> EngineConfig:
    """An unsplit engine whose decoding and prefilling are a little apart; `engine_noise_nats` sets it apart."""
    model = ModelConfig(prefill_noise_nats=NOISE_NATS, engine_noise_nats=engine_noise_nats, seed=seed)
    return EngineConfig(role="aggregated", model=model, **settings)


def a_context(settings: Settings | None = None) -> Context:
    return Context(
        settings=settings or Settings(),
        console=Console(file=io.StringIO(), width=160),
        errors=Console(file=io.StringIO(), width=160),
        wall_clock=lambda: 1000.0,
    )


def parsed(command: Command, line: str) -> argparse.Namespace:
    """The arguments of a line such as '--prompt "a b"', with the options of every command unset."""
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    command.add_arguments(parser)
    parser.set_defaults(json=None, quiet=False, verbose=0, config=None)
    return parser.parse_args(shlex.split(line))


async def run(command: Command, line: str, context: Context | None = None) -> Result:
    told = command.run(parsed(command, line), context or a_context())
    result = await told if inspect.isawaitable(told) else told
    assert isinstance(result, Result)
    return result
