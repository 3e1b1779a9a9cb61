"""Answers of engines that tell no token ids, whole and streamed: what they say is a test's choice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from tests.support.acc.engines import engine_of

Telling = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def entry(name: str, told: bytes | None = None, tops: Sequence[tuple[str, bytes, float]] = ()) -> dict[str, Any]:
    """One token of `logprobs.content`; `tops` are names, bytes and logprobs of the likeliest."""
    listed = [{"token": each, "logprob": number, "bytes": list(raw)} for each, raw, number in tops]
    logprob = tops[0][2] if tops else -0.1
    return {"token": name, "logprob": logprob, "bytes": None if told is None else list(told), "top_logprobs": listed}


def halves(text: str, *, has_bytes: bool = False) -> list[dict[str, Any]]:
    """A token for every ASCII character, and one called U+FFFD for every byte of any other."""
    return [
        entry(chr(byte) if byte < 128 else "\ufffd", bytes([byte]) if has_bytes else None) for byte in text.encode()
    ]


def answer(
    content: str | None, entries: Sequence[Mapping[str, Any]] | None = None, *, finish: str | None = "stop",
    **message: Any,
) -> dict[str, Any]:  # fmt: skip
    """A chat answer. `message` has its other fields: reasoning, tool_calls."""
    choice: dict[str, Any] = {
        "index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish,
    }  # fmt: skip
    if entries is not None:
        choice["logprobs"] = {"content": list(entries)}
    return {"id": "chatcmpl-1", "choices": [choice]}


def call(name: str, arguments: Any, call_id: str = "c1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def events_of(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same answer as a stream has it: everything in one piece but tool calls, whose arguments come in two."""
    choice = told["choices"][0]
    message = dict(choice["message"])
    calls = message.pop("tool_calls", None) or []
    pieces: list[dict[str, Any]] = [{"delta": message, "logprobs": choice.get("logprobs")}]
    for number, each in enumerate(calls):
        arguments = each["function"]["arguments"]
        head = {**each, "index": number, "function": {**each["function"], "arguments": arguments[:3]}}
        rest = {"index": number, "function": {"arguments": arguments[3:]}}
        pieces += [{"delta": {"tool_calls": [part]}} for part in (head, rest)]
    pieces.append({"delta": {}, "finish_reason": choice["finish_reason"]})
    return [{"id": told["id"], "choices": [{"index": 0, **piece}]} for piece in pieces]


@asynccontextmanager
async def speaking(telling: Telling | Mapping[str, Any]) -> AsyncIterator[str]:
    """An engine that gives one answer, or what `telling` makes of a request's body; its URL."""

    async def generate(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        told = telling(body) if callable(telling) else telling
        if not body.get("stream"):
            return web.json_response(dict(told))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in events_of(told):
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async with engine_of(generate) as url:
        yield url


@asynccontextmanager
async def both(
    baseline: Telling | Mapping[str, Any], target: Telling | Mapping[str, Any]
) -> AsyncIterator[tuple[str, str]]:
    """Two engines."""
    async with speaking(baseline) as one, speaking(target) as other:
        yield one, other
