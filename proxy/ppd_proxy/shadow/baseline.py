"""The unsplit engines that answers are held against: scoring, replaying, generating of their own.

One HTTP call each. Carries no header of any client: baselines may stand in another trust zone and have a key of their
own. Shapes: WIRE of vLLM 0.32 (`prompt_logprobs`, `return_token_ids`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from ppd_accuracy.answers.spread import Spread, likeliest, spread_of
from ppd_shell.http import engine_headers
from ppd_wire.answers.answer import is_too_many_logprobs
from ppd_wire.answers.candidate import Candidate, read_candidate
from ppd_wire.answers.scored import Position, read_scored
from ppd_wire.answers.tokens import BY_ID
from ppd_wire.requests.checks import score_body
from ppd_wire.requests.generation import Kind

_DOWN_FOR_S = 5.0
_MAX_ANSWER_BYTES = 64 * 2**20
_encoder = msgspec.json.Encoder()


class BaselineError(Exception):
    """A check that came to nothing. `reason` is a word for the metric; `body` is what the engine answered, if anything,
    and may quote the prompt."""

    def __init__(self, reason: str, message: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.reason = reason
        self.body = body


class Baselines:
    """The least busy of several; one that could not be reached is left alone for a few seconds."""

    def __init__(
        self, session: aiohttp.ClientSession, urls: Sequence[str], *, timeout_s: float, key: str | None
    ) -> None:
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._headers = {**engine_headers(key), "content-type": "application/json"}
        self._inflight = dict.fromkeys(urls, 0)
        self._down_until = dict.fromkeys(urls, -math.inf)

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(self._inflight)

    async def score(self, model: str, prompt: Sequence[int], answer: Sequence[int], *, top: int = 0) -> list[Position]:
        """What it thinks of each answer token, in one prefill, and of the `top` likeliest. Raises BaselineError; with
        `top`, `too_many_logprobs` and `too_large` are gone without."""
        count = top + 1 if top else 1
        try:
            scored = await self._post("/v1/completions", _encoder.encode(score_body(model, prompt, answer, count)))
        except BaselineError as error:
            if top and is_too_many_logprobs(error.body, "prompt", count):
                raise BaselineError("too_many_logprobs", f"{count} prompt logprobs are more than it allows") from None
            raise
        if top:  # thousands of lists, which would keep the loop from clients
            return await asyncio.to_thread(_read_scores, scored, len(prompt), answer)
        return _read_scores(scored, len(prompt), answer)

    async def generate(self, path: str, kind: Kind, body: Mapping[str, Any]) -> Candidate:
        """An answer of the baseline's own. Raises BaselineError."""
        candidate = read_candidate(kind, await self._post(path, _encoder.encode(body)))
        if candidate is None or not candidate.token_ids:
            raise BaselineError("bad_answer", "an answer without token ids")
        return candidate

    async def _post(self, path: str, body: bytes) -> bytes:
        now = asyncio.get_running_loop().time()
        up = [url for url in self._inflight if self._down_until[url] <= now]
        if not up:
            raise BaselineError("baseline_down", "no baseline can be reached")
        url = min(up, key=lambda each: self._inflight[each])
        self._inflight[url] += 1
        try:
            async with self._session.post(
                url + path, data=body, headers=self._headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                answer = await response.content.read(_MAX_ANSWER_BYTES)
                while chunk := await response.content.read(_MAX_ANSWER_BYTES - len(answer) + 1):
                    answer += chunk
                    if len(answer) > _MAX_ANSWER_BYTES:
                        raise BaselineError("too_large", f"{url}{path} answered more than {_MAX_ANSWER_BYTES} bytes")
        except TimeoutError:
            raise BaselineError("baseline_slow", f"{url} took more than {self._timeout.total:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            self._down_until[url] = asyncio.get_running_loop().time() + _DOWN_FOR_S
            raise BaselineError("baseline_down", f"{url}: {error}") from None
        finally:
            self._inflight[url] -= 1
        if response.status != 200:
            reason = "refused" if 400 <= response.status < 500 else "baseline_error"
            raise BaselineError(reason, f"{url}{path} answered {response.status}", answer)
        return answer


def _read_scores(scored: bytes, prompt_tokens: int, answer: Sequence[int]) -> list[Position]:
    try:
        return read_scored(scored, prompt_tokens, answer, is_strict=True)
    except ValueError as error:
        raise BaselineError("bad_answer", f"no prompt logprobs of the answer: {error}") from None


def tops_of(positions: Sequence[Position], top: int) -> list[dict[str, float]]:
    """Its `top` likeliest tokens at each place, by `token_id:<n>`; empty where the answer's own has no number."""
    return [
        likeliest({f"{BY_ID}{token}": logprob for token, logprob in each.top.items()}, top)
        if each.logprob is not None else {}
        for each in positions
    ]  # fmt: skip


def spread_of_both(candidate: Candidate, positions: Sequence[Position], top: int) -> Spread | None:
    """Of the `top` likeliest tokens of both; None where one did not tell them. Where the client asked for logprobs
    itself, the candidate may have told fewer, or named them by their texts."""
    if not top or len(candidate.tops) != len(positions):
        return None
    listed = (each if all(name.startswith(BY_ID) for name in each) else {} for each in candidate.tops)
    return spread_of([likeliest(each, top) for each in listed], tops_of(positions, top))
