"""Runs a command of ppd-acc in the test's own event loop, against engines that run there, too."""

from __future__ import annotations

import argparse
import inspect
import io
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
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


@asynccontextmanager
async def front(
    url: str,
    other_url: str,
    is_other: Callable[[dict, int], bool],
    *,
    refuses: tuple[str, ...] = (),
    edit: Callable[[bytes], bytes] = bytes,
    computes_nan: bool = False,
) -> AsyncIterator[str]:
    """An engine that is a second one for some requests: `is_other` gets the body and how many requests are under way,
    this one included. `edit` changes what it answers. It answers 404 to the paths in `refuses`, and 400 to token ids
    where "ids" is among them. `computes_nan`: it refuses to tell logprobs, as vLLM does where they are NaN."""
    under_way = 0

    async def pass_on(request: web.Request) -> web.Response:
        nonlocal under_way
        if request.path in refuses:
            return web.Response(status=404)
        body = await request.json() if request.method == "POST" else {}
        if "ids" in refuses and isinstance(body.get("prompt"), list):
            return web.Response(status=400)
        if computes_nan and (body.get("logprobs") is not None or body.get("prompt_logprobs") is not None):
            message = "Out of range float values are not JSON compliant"
            return web.json_response({"error": {"message": message, "code": 400}}, status=400)
        under_way += 1
        try:
            # Whoever was sent at the same time has arrived, too.
            async with session.get(url + "/health"), session.get(url + "/health"):
                pass
            chosen = other_url if request.path.startswith("/v1/c") and is_other(body, under_way) else url
            sent = session.request(request.method, chosen + request.path, data=await request.read())
            async with sent as response:
                return web.Response(status=response.status, body=edit(await response.read()))
        finally:
            under_way -= 1

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", pass_on)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    async with aiohttp.ClientSession() as session:
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
