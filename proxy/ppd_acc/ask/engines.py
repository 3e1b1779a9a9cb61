"""Asking an engine: answers, scores of given tokens, and the small endpoints. One keep-alive session for all engines.

An `Engine` limits its own requests, tries again what may pass (connection errors, timeouts, broken answers, 429 and
5xx) and says in `EngineTrouble` why it gave up.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import aiohttp
import msgspec

from ppd_acc.ask.access import Access, Sampling
from ppd_acc.ask.answers import Answer, read_answer
from ppd_acc.ask.question import Question
from ppd_acc.ask.streams import Streamed, StreamReader
from ppd_acc.outcome import Trouble
from ppd_shell.http import engine_headers, make_session
from ppd_wire.answers.answer import is_not_a_number
from ppd_wire.answers.refusals import told_by
from ppd_wire.answers.scored import Position, read_scored
from ppd_wire.requests import asking
from ppd_wire.requests.checks import score_body

_encode = msgspec.json.Encoder().encode
_Told = TypeVar("_Told")
_NOT_NUMBERS = "not_numbers"
_KEYS = "--api-key or PPD_ACC_API_KEY"
_TARGET_KEYS = "--target-api-key or PPD_ACC_TARGET_API_KEY, else --api-key"


class EngineTrouble(Trouble):
    """An engine that gave no usable answer. `reason`: unreachable, timeout, status_<n>, not_numbers, broken or
    bad_answer."""

    def __init__(self, reason: str, message: str, *, is_passing: bool = True, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.is_passing = is_passing
        self.retry_after_s = retry_after_s


class Engine:
    """One engine. `model` is known after the first request at the latest. `side` is what it is in this run: where it
    is not "" or "baseline", the target's key is its key."""

    def __init__(self, session: aiohttp.ClientSession, url: str, access: Access, side: str = "") -> None:
        self.url = url
        self.side = side
        self._key = access.key_of(side)
        self.sent_headers = {**access.headers, "authorization": self._key or ""}
        self._session = session
        self._access = access
        self._model = access.model
        self._limit = asyncio.Semaphore(access.concurrency)
        self._headers = {**engine_headers(self._key), **access.headers, "content-type": "application/json"}
        self._timeout = aiohttp.ClientTimeout(total=access.timeout_s)
        self.concurrency = access.concurrency
        self.retries = 0

    @property
    def known_model(self) -> str | None:
        """The name that is asked for; None before the first request."""
        return self._model

    async def model(self) -> str:
        """The name to ask for. Raises EngineTrouble."""
        if self._model is None:
            models = await self.models()
            if not models:
                raise EngineTrouble("bad_answer", f"{self.url}/v1/models lists no model", is_passing=False)
            self._model = str(models[0].get("id"))
        return self._model

    async def models(self) -> list[dict[str, Any]]:
        """What /v1/models lists. Raises EngineTrouble."""
        told = await self.get("/v1/models")
        data = told.get("data") if isinstance(told, dict) else None
        if not isinstance(data, list):
            raise EngineTrouble("bad_answer", f"{self.url}/v1/models has no list of models", is_passing=False)
        return [each for each in data if isinstance(each, dict)]

    async def version(self) -> str | None:
        """The release that it says it is; None where it does not tell."""
        try:
            body = await self.get("/version")
        except EngineTrouble:
            return None
        version = body.get("version") if isinstance(body, dict) else None
        return version if isinstance(version, str) else None

    async def ask(self, question: Question, sampling: Sampling, *, request_id: str | None = None) -> Answer:
        """One answer with token ids and logprobs, as far as the engine gives them. Raises EngineTrouble.

        vLLM 0.32 refuses to write an answer with a logprob that is NaN. Then it is asked for the tokens alone, and none
        of their logprobs counts as a number.
        """
        path, body = question.body(self._access.endpoint, await self.model(), sampling)
        try:
            return await self._answer(path, body, request_id)
        except EngineTrouble as trouble:
            if trouble.reason != _NOT_NUMBERS:
                raise
        bare = {name: value for name, value in body.items() if name not in asking.BARE}
        answer = await self._answer(path, bare, f"{request_id}-bare" if request_id else None)
        count = len(answer.tokens)
        return msgspec.structs.replace(answer, logprobs=[None] * count, tops=[{} for _ in range(count)])

    async def _answer(self, path: str, body: Mapping[str, Any], request_id: str | None) -> Answer:
        loop = asyncio.get_running_loop()
        attempts = itertools.count()

        async def once() -> Answer:
            # An engine may still be at the attempt before, and takes no second request of that name.
            number = next(attempts)
            headers = {"x-request-id": f"{request_id}-{number}" if number else request_id} if request_id else {}
            started_at = loop.time()
            told, response = await self._exchange("POST", path, _encode(body), headers)
            total_ms = (loop.time() - started_at) * 1000
            answer = _read(self.url + path, lambda: read_answer(told, total_ms=total_ms))
            return msgspec.structs.replace(answer, decision=response.headers.get("x-ppd-decision"))

        return await self._with_retries(once)

    async def stream(self, question: Question, sampling: Sampling, *, request_id: str | None = None) -> Streamed:
        """As `ask`, streamed, with usage at the end. Raises EngineTrouble, for a stream that breaks off, too."""
        path, body = question.body(self._access.endpoint, await self.model(), sampling)
        encoded = _encode(asking.streamed(body))
        headers = {"x-request-id": request_id} if request_id else {}
        clock = asyncio.get_running_loop().time

        async def once() -> Streamed:
            reader = StreamReader()
            started_at = clock()
            async with self._open("POST", path, encoded, headers) as response:
                async for data in response.content.iter_any():
                    at_ms = (clock() - started_at) * 1000
                    _read(self.url + path, partial(reader.feed, data, at_ms))
            total_ms = (clock() - started_at) * 1000
            decision = response.headers.get("x-ppd-decision")
            return _read(self.url + path, lambda: reader.finish(total_ms, decision))

        return await self._with_retries(once)

    async def score(self, prompt: Sequence[int], answer: Sequence[int], *, top: int = 1) -> list[Position]:
        """How this engine's prefill sees each of the answer's tokens (teacher forcing). Raises EngineTrouble."""
        body = _encode(score_body(await self.model(), prompt, answer, top))

        async def once() -> list[Position]:
            scored = await self._send("POST", "/v1/completions", body, {})
            return _read(self.url + "/v1/completions", lambda: read_scored(scored, len(prompt), answer))

        return await self._with_retries(once)

    async def get(self, path: str) -> Any:
        """The JSON of a small endpoint. Raises EngineTrouble."""
        told = await self._with_retries(lambda: self._send("GET", path, None, {}))
        return _read(self.url + path, lambda: msgspec.json.decode(told))

    async def text(self, path: str) -> str:
        """As `get`, for an endpoint that answers with text. Raises EngineTrouble."""
        told = await self._with_retries(lambda: self._send("GET", path, None, {}))
        return told.decode(errors="replace")

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """As `get`, for a small endpoint that takes JSON."""
        told = await self._with_retries(lambda: self._send("POST", path, _encode(body), {}))
        return _read(self.url + path, lambda: msgspec.json.decode(told))

    async def _with_retries(self, once: Callable[[], Awaitable[_Told]]) -> _Told:
        attempt = 0
        while True:
            try:
                async with self._limit:
                    return await once()
            except EngineTrouble as trouble:
                if not trouble.is_passing or attempt == self._access.retries:
                    raise
                delay_s = self._access.retry_delay_s * 2**attempt * random.uniform(1.0, 1.25)
                delay_s = max(delay_s, trouble.retry_after_s)
            attempt += 1
            self.retries += 1
            await asyncio.sleep(delay_s)

    async def _send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        return (await self._exchange(method, path, body, headers))[0]

    async def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[bytes, aiohttp.ClientResponse]:
        """The body, read to its end, and the response it came with."""
        async with self._open(method, path, body, headers) as response:
            return await response.content.read(-1), response

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response with status 200; every failure, while its content is read too, is an EngineTrouble."""
        url = self.url + path
        try:
            async with self._session.request(
                method, url, data=body, headers={**self._headers, **headers}, timeout=self._timeout,
                allow_redirects=False,
            ) as response:  # fmt: skip
                if response.status != 200:
                    raise self._refusal(url, response, await response.content.read(-1))
                yield response
        except TimeoutError:
            raise EngineTrouble("timeout", f"{url} took more than {self._timeout.total:g} s") from None
        except aiohttp.InvalidURL:
            raise EngineTrouble("unreachable", f"{url} is no URL", is_passing=False) from None
        except aiohttp.ClientConnectorError as error:
            raise EngineTrouble("unreachable", f"{url} cannot be reached: {error.os_error}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise EngineTrouble("broken", f"{url} broke off: {str(error) or type(error).__name__}") from None


    def _refusal(self, url: str, response: aiohttp.ClientResponse, told: bytes) -> EngineTrouble:
        status = response.status
        after = response.headers.get("retry-after", "")
        remedy = f" ({_KEYS if self.side in ('', 'baseline') else _TARGET_KEYS})" if status in (401, 403) else ""
        return EngineTrouble(
            _NOT_NUMBERS if is_not_a_number(told) else f"status_{status}",
            f"{url} answered {status}: {told_by(told, self._key)}{remedy}",
            is_passing=status in (408, 429) or status >= 500,
            retry_after_s=min(float(after), 60.0) if after.isdigit() else 0.0,
        )


def _read(url: str, read: Callable[[], _Told]) -> _Told:
    try:
        return read()
    except (ValueError, msgspec.MsgspecError) as error:
        raise EngineTrouble("bad_answer", f"{url}: {error}") from None


@asynccontextmanager
async def engines(access: Access, *urls: str, sides: Sequence[str] = ()) -> AsyncIterator[tuple[Engine, ...]]:
    """Engines that share one session, closed at the end. The same URL twice gives two, each with its own limit.

    `sides` are what they are in this run, as their flags have it, one per URL, or none: a trouble that nobody has taken
    names the one of its URL.
    """
    named = sides or [""] * len(urls)
    async with make_session(connect_timeout_s=min(10.0, access.timeout_s), connections_per_engine=0) as session:
        try:
            yield tuple(Engine(session, url, access, side) for url, side in zip(urls, named, strict=True))
        except EngineTrouble as trouble:
            side = next((side for url, side in zip(urls, named, strict=True) if str(trouble).startswith(url)), "")
            if not side:
                raise
            message = f"--{side.replace('_', '-')}: {trouble}"
            raise EngineTrouble(trouble.reason, message, is_passing=trouble.is_passing) from None


def engines_by_side(access: Access, urls: Mapping[str, str]) -> AbstractAsyncContextManager[tuple[Engine, ...]]:
    """`engines` of these URLs, by what each of them is in this run."""
    return engines(access, *urls.values(), sides=tuple(urls))
