"""Engines for ppd-acc: scripted answers, simulated ones, two behind one front, and one that fails now and then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from ppd_sim.config import EngineConfig
from ppd_sim.model.model import ModelConfig

Answering = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
FAULTS = ("status", "null", "broken", "not_json", "hang")
PROMPT_TOKENS = 3
TOKENS = tuple(range(10, 18))
AT = 4
NOISE_NATS = 0.005
SIMULATED_NOISE_NATS = 0.02


def engine_config(*, engine_noise_nats: float = 0.0, seed: int = 0, **settings) -> EngineConfig:
    """An unsplit engine whose decoding and prefilling are a little apart; `engine_noise_nats` sets it apart."""
    model = ModelConfig(prefill_noise_nats=SIMULATED_NOISE_NATS, engine_noise_nats=engine_noise_nats, seed=seed)
    return EngineConfig(role="aggregated", model=model, **settings)


@asynccontextmanager
async def serving(application: web.Application) -> AsyncIterator[str]:
    """Its URL."""
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def engine_of(generate: Handler, model: str = "scripted") -> AsyncIterator[str]:
    """An engine whose generations are all `generate`'s; its URL."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": model, "max_model_len": 4096}]})

    application = web.Application()
    application.router.add_post("/v1/chat/completions", generate)
    application.router.add_post("/v1/completions", generate)
    application.router.add_get("/v1/models", models)
    async with serving(application) as url:
        yield url


@asynccontextmanager
async def scripted_engine(answering: Answering, model: str = "scripted") -> AsyncIterator[str]:
    """An engine that answers every generation with what `answering` makes of the request's body; its URL."""

    async def generate(request: web.Request) -> web.Response:
        return web.json_response(dict(answering({**await request.json(), "path": request.path})))

    async with engine_of(generate, model) as url:
        yield url


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
    async with aiohttp.ClientSession() as session, serving(application) as served:
        yield served
