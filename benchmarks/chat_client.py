"""Talking to the proxy as its clients and its operator do: chats, raw completions, mode, engines.

Measures what a client sees (time to first token, total) and reads what the answer tells (usage, `x-ppd-decision`).
Knows nothing of what is compared with what.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

CONNECT_S = 10
SILENCE_S = 600
ERROR_TEXT_CHARS = 300


class RequestFailed(Exception):
    """The proxy refused a request or broke off its answer; the text says what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. `first_token_s` is None for an answer that was not streamed, token counts where nothing told them."""

    text: str
    first_token_s: float | None
    total_s: float
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    route: str
    reason: str
    turn: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine as `GET /engines` lists it."""

    id: str
    url: str
    role: str
    state: str


def new_session() -> aiohttp.ClientSession:
    """A session without a limit on how long an answer takes, only on silence."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    return aiohttp.ClientSession(timeout=timeout)


class ProxyClient:
    """The proxy at `url`. Raises RequestFailed for every answer that is not a complete 200, with the proxy's text."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, *, api_key: str | None = None, admin_key: str | None = None
    ) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._admin_headers = {"x-admin-key": admin_key} if admin_key else {}

    async def first_model(self) -> str:
        models = (await self._json("GET", "/v1/models", self._headers))["data"]
        if not models:
            raise RequestFailed(f"{self._url}/v1/models lists no model; give --model")
        return str(models[0]["id"])

    async def count_tokens(self, model: str, text: str) -> int:
        """Tokens of `text` alone, as the engine's tokenizer counts them."""
        told = await self._json("POST", "/tokenize", self._headers, {"model": model, "prompt": text})
        return int(told["count"])

    async def mode(self) -> str:
        return str((await self._json("GET", "/mode", self._admin_headers))["mode"])

    async def set_mode(self, mode: str) -> None:
        await self._json("POST", f"/mode/{mode}", self._admin_headers)

    async def engines(self) -> list[Engine]:
        listed = (await self._json("GET", "/engines", self._admin_headers))["engines"]
        return [Engine(**{name: each[name] for name in ("id", "url", "role", "state")}) for each in listed]

    async def metrics_text(self) -> str:
        """The proxy's own `/metrics`."""
        try:
            async with self._session.get(self._url + "/metrics", headers=self._admin_headers) as response:
                await _raise_for_status(response)
                return await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RequestFailed(f"{self._url}/metrics: {type(error).__name__}: {error}") from error

    async def chat(self, body: Mapping[str, Any]) -> Answer:
        """One chat turn; `body` is sent as it is, `stream` in it decides what is measured."""
        return await self._generate("/v1/chat/completions", body)

    async def complete(self, body: Mapping[str, Any]) -> Answer:
        """One raw completion, otherwise as `chat`."""
        return await self._generate("/v1/completions", body)

    async def _generate(self, path: str, body: Mapping[str, Any]) -> Answer:
        started_at = time.perf_counter()
        first_token_s: float | None = None
        parts: list[str] = []
        usage: Mapping[str, Any] = {}
        try:
            async with self._session.post(self._url + path, json=body, headers=self._headers) as response:
                await _raise_for_status(response)
                decision = response.headers.get("x-ppd-decision", "")
                events = _events(response) if body.get("stream") else _whole(response)
                async for event in events:
                    if "error" in event:
                        raise RequestFailed(f"{path}: broke off: {json.dumps(event['error'])[:ERROR_TEXT_CHARS]}")
                    text, is_content = _content(event)
                    if is_content and first_token_s is None:
                        first_token_s = time.perf_counter() - started_at
                    parts.append(text)
                    usage = event.get("usage") or usage
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RequestFailed(f"{self._url}{path}: {type(error).__name__}: {error}") from error
        route, reason, turn = parse_decision(decision)
        return Answer(
            text="".join(parts),
            first_token_s=first_token_s if body.get("stream") else None,
            total_s=time.perf_counter() - started_at,
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
            route=route,
            reason=reason,
            turn=turn,
        )

    async def _json(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever the endpoint answers
        try:
            async with self._session.request(method, self._url + path, headers=headers, json=body) as response:
                await _raise_for_status(response)
                return await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RequestFailed(f"{self._url}{path}: {type(error).__name__}: {error}") from error


def parse_decision(header: str) -> tuple[str, str, int | None]:
    """Route, reason and turn of an `x-ppd-decision` header; `?` and None where it does not say."""
    route, *rest = header.split(";")
    named = dict(part.split("=", 1) for part in rest if "=" in part)
    turn = named.get("turn", "")
    return route or "?", named.get("reason", "?"), int(turn) if turn.isdecimal() else None


async def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        text = (await response.text(errors="replace"))[:ERROR_TEXT_CHARS].strip()
        raise RequestFailed(f"{response.method} {response.url}: status {response.status}: {text}")


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """The JSON of every server-sent event up to `[DONE]`; a stream that ends without it has been cut off."""
    async for line in response.content:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        yield json.loads(data)
    raise RequestFailed(f"{response.url}: the stream ended without [DONE]")


async def _whole(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    yield await response.json()


def _content(event: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of an event's first choice, and whether it counts as the first token: text, or an end without any."""
    for choice in event.get("choices") or ():
        holder = choice.get("delta") or choice.get("message") or choice
        text = holder.get("content") or holder.get("text") or ""
        is_thought = bool(holder.get("reasoning") or holder.get("reasoning_content"))
        return str(text), bool(text) or is_thought or bool(choice.get("finish_reason"))
    return "", False
