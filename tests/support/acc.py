"""Running a command of ppd-acc in the test's own loop, and engines whose every answer is written by the test."""

from __future__ import annotations

import argparse
import inspect
import io
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from rich.console import Console

from ppd_proxy.acc.command import Command, Context, Result
from ppd_proxy.acc.registry import COMMANDS
from ppd_proxy.acc.settings import Settings

Answering = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def command_of(name: str) -> Command:
    (found,) = [listed for listed in COMMANDS if listed.name == name]
    return found.load()


async def run_command(name: str, *arguments: str, settings: Settings | None = None, at: Path | None = None) -> Result:
    """Parse and run, without what `main` adds: mistakes and troubles are raised."""
    command = command_of(name)
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    command.add_arguments(parser)
    context = Context(
        settings=settings or Settings(),
        console=Console(file=io.StringIO(), width=160),
        errors=Console(file=io.StringIO(), width=160),
        wall_clock=lambda: 1_800_000_000.0,
        directory=at or Path(),
    )
    told = command.run(parser.parse_args(arguments), context)
    result = await told if inspect.iscoroutine(told) else told
    assert isinstance(result, Result)
    return result


@asynccontextmanager
async def scripted_engine(answering: Answering, model: str = "scripted") -> AsyncIterator[str]:
    """An engine that answers every generation with what `answering` makes of the request's body; its URL."""

    async def generate(request: web.Request) -> web.Response:
        return web.json_response(dict(answering({**await request.json(), "path": request.path})))

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": model, "max_model_len": 4096}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", generate)
    app.router.add_post("/v1/completions", generate)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def chat_answer(
    tokens: Sequence[int], tops: Sequence[Mapping[int, float]], *, text: str, prompt: Sequence[int] = (1, 2, 3)
) -> dict[str, Any]:
    """A chat answer with token ids and the likeliest tokens' logprobs."""

    def named(token: int, logprob: float) -> dict[str, Any]:
        return {"token": f"token_id:{token}", "logprob": logprob, "bytes": None}

    content = [
        {**named(token, top[token]), "top_logprobs": [named(*each) for each in top.items()]}
        for token, top in zip(tokens, tops, strict=True)
    ]
    return {
        "id": "chatcmpl-1",
        "prompt_token_ids": list(prompt),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "logprobs": {"content": content},
                "finish_reason": "length",
                "token_ids": list(tokens),
            }
        ],
    }


def scored_prompt(token_ids: Sequence[int], tops: Mapping[int, Mapping[int, float]]) -> dict[str, Any]:
    """What an engine answers to `prompt_logprobs`: `tops` by position, certain of the token elsewhere."""
    positions: list[dict[str, Any] | None] = [None]
    for position, token in enumerate(token_ids[1:], 1):
        top = tops.get(position, {token: -0.01})
        ranked = sorted(top, key=lambda each: -top[each])
        positions.append({str(each): {"logprob": top[each], "rank": ranked.index(each) + 1} for each in top})
    return {"id": "cmpl-1", "choices": [{"index": 0, "text": "", "prompt_logprobs": positions}]}
