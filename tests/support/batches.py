"""Engines and datasets for batch-compare: answers by prompt, and an engine that fails at every tenth request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.support.acc import chat_answer, scored_prompt, scripted_engine

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
FAULTS = ("status", "null", "broken", "not_json", "hang")
PROMPT_TOKENS = 3
TOKENS = tuple(range(10, 18))
AT = 4
NOISE_NATS = 0.005


def prompt_ids(gap: float) -> tuple[int, ...]:
    """A prompt by whose ids the prefill knows how large the gap is."""
    return (1, 2, round(1e6 * gap))


def gap_of(token_ids: Sequence[int]) -> float:
    return token_ids[2] / 1e6


def tops_of(tokens: Sequence[int], other: int, gap: float) -> list[dict[int, float]]:
    """Certain everywhere but at `AT`, where `other` is `gap` less likely."""
    return [
        {token: -0.4, other: -0.4 - gap} if place == AT else {token: -0.01, token + 500: -6.0}
        for place, token in enumerate(tokens)
    ]


def answering(gaps: Mapping[str, float], *, is_target: bool) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Answers of TOKENS; to a prompt in `gaps` the target takes 99 at AT, both engines by that many nats. The prefill
    sees the second likeliest token NOISE_NATS off."""

    def answer(body: Mapping[str, Any]) -> Mapping[str, Any]:
        if "prompt_logprobs" in body:
            moved = {
                PROMPT_TOKENS + place: {
                    token: number - NOISE_NATS * rank for rank, (token, number) in enumerate(top.items())
                }
                for place, top in enumerate(tops_of(TOKENS, 99, gap_of(body["prompt"])))
            }
            return scored_prompt(body["prompt"], moved)
        prompt = body["messages"][-1]["content"]
        gap = gaps.get(prompt)
        tokens = [*TOKENS[:AT], 99, *TOKENS[AT + 1 :]] if gap is not None and is_target else list(TOKENS)
        tops = tops_of(tokens, TOKENS[AT] if tokens[AT] == 99 else 99, 1.0 if gap is None else gap)
        text = " ".join(map(str, tokens))
        return chat_answer(tokens, tops, text=text, prompt=prompt_ids(1.0 if gap is None else gap))

    return answer


@asynccontextmanager
async def pair(gaps: Mapping[str, float]) -> AsyncIterator[tuple[str, str]]:
    """A baseline and a target that differ as `gaps` says."""
    async with (
        scripted_engine(answering(gaps, is_target=False)) as baseline,
        scripted_engine(answering(gaps, is_target=True)) as target,
    ):
        yield baseline, target


def dataset(folder: Path, count: int, name: str = "prompts.jsonl") -> str:
    """`count` prompts q0, q1, ..., with the ids s0, s1, ..."""
    lines = (json.dumps({"id": f"s{number}", "prompt": f"q{number}"}) for number in range(count))
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / name)


@asynccontextmanager
async def faulty_engine(fault: str, gaps: Mapping[str, float] | None = None) -> AsyncIterator[str]:
    """A target that answers well but for every tenth generation."""
    answer = answering(gaps or {}, is_target=True)
    released = asyncio.Event()
    seen = 0

    async def generate(request: web.Request) -> web.StreamResponse:
        nonlocal seen
        body = await request.json()
        seen += 1
        told = dict(answer(body))
        if seen % 10:
            return web.json_response(told)
        if fault == "status":
            return web.json_response({"error": {"message": "boom"}}, status=500)
        if fault == "null":
            del told["choices"][0]["token_ids"]
            told["choices"][0] |= {"message": {"role": "assistant", "content": None}, "logprobs": None}
            return web.json_response(told)
        if fault == "not_json":
            return web.Response(text='{"choices": [{"message": {"content": "half', content_type="application/json")
        if fault == "hang":
            await released.wait()
            return web.json_response({})
        response = web.StreamResponse(headers={"content-length": "100000", "content-type": "application/json"})
        await response.prepare(request)
        await response.write(json.dumps(told).encode()[:40])
        assert request.transport is not None
        request.transport.close()
        return response

    async with engine_of(generate) as url:
        try:
            yield url
        finally:
            released.set()


@asynccontextmanager
async def engine_of(generate: Handler) -> AsyncIterator[str]:
    """An engine whose generations are all `generate`'s."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "scripted"}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", generate)
    app.router.add_post("/v1/completions", generate)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    finally:
        await runner.cleanup()


def rows_in(journal: Path) -> list[int]:
    """The row number of every finished sample's line, in the order of writing."""
    lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
    return [line["row"] for line in lines if "row" in line]
