"""The unsplit engines that answers are held against: scoring, replaying, generating of their own.

One HTTP call each. Carries no header of any client: baselines may stand in another trust zone and have a key of their
own. Shapes: WIRE of vLLM 0.32 (`prompt_logprobs`, `return_token_ids`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
import msgspec
import numpy as np

from ppd_accuracy.answers.scores import Scores
from ppd_accuracy.answers.spread import Spread, likeliest, spread_of
from ppd_shell.http import engine_headers
from ppd_wire.answers.answer import is_too_many_logprobs
from ppd_wire.answers.candidate import BY_ID, Candidate, read_candidate
from ppd_wire.requests.generation import Kind

_DOWN_FOR_S = 5.0
_MAX_ANSWER_BYTES = 64 * 2**20
_encoder = msgspec.json.Encoder()


class _Choice(msgspec.Struct):
    prompt_logprobs: list[msgspec.Raw]


class _Scored(msgspec.Struct):
    choices: list[_Choice]


_scored = msgspec.json.Decoder(_Scored)
_positions = msgspec.json.Decoder(dict[str, dict[str, Any]] | None)


class BaselineError(Exception):
    """A check that came to nothing. `reason` is a word for the metric; `body` is what the engine answered, if anything,
    and may quote the prompt."""

    def __init__(self, reason: str, message: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.reason = reason
        self.body = body


class Told(NamedTuple):
    """What a baseline thinks of an answer's tokens: logprobs, ranks and margins, NaN where it has no number; `tops` are
    its own likeliest tokens at each place, by `token_id:<n>`, empty where not asked for."""

    logprobs: list[float]
    ranks: list[float]
    margins: list[float]
    tops: list[dict[str, float]]


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

    async def score(self, model: str, prompt: Sequence[int], answer: Sequence[int], *, top: int = 0) -> Told:
        """What it thinks of each answer token, in one prefill, and of the `top` likeliest. Raises BaselineError; with
        `top`, `too_many_logprobs` and `too_large` are gone without."""
        count = top + 1 if top else 1
        body = {
            "model": model,
            "prompt": [*prompt, *answer],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": count,
        }
        try:
            told = await self._post("/v1/completions", _encoder.encode(body))
        except BaselineError as error:
            if top and is_too_many_logprobs(error.body, "prompt", count):
                raise BaselineError("too_many_logprobs", f"{count} prompt logprobs are more than it allows") from None
            raise
        if top:  # thousands of lists, which would keep the loop from clients
            return await asyncio.to_thread(_read_scores, told, len(prompt), answer, top)
        return _read_scores(told, len(prompt), answer, top)

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
                told = await response.content.read(_MAX_ANSWER_BYTES)
                while chunk := await response.content.read(_MAX_ANSWER_BYTES - len(told) + 1):
                    told += chunk
                    if len(told) > _MAX_ANSWER_BYTES:
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
            raise BaselineError(reason, f"{url}{path} answered {response.status}", told)
        return told


def _read_scores(told: bytes, prompt_tokens: int, answer: Sequence[int], top: int) -> Told:
    try:
        # Of the prompt's own positions, which are most of it, nothing is read.
        raw = _scored.decode(told).choices[0].prompt_logprobs[prompt_tokens:]
        return read_positions([_positions.decode(each) for each in raw], answer, top)
    except (msgspec.DecodeError, LookupError, TypeError, ValueError) as error:
        raise BaselineError("bad_answer", f"no prompt logprobs of the answer: {error}") from None


def read_positions(
    positions: Sequence[Mapping[str, Mapping[str, Any]] | None], answer: Sequence[int], top: int = 0
) -> Told:
    """From vLLM's `prompt_logprobs`, which list the answer's token and, with `top`, one more than so many likeliest."""
    if len(positions) != len(answer):
        raise ValueError(f"{len(positions)} positions for {len(answer)} tokens")
    told = Told([], [], [], [])
    for token, position in zip(answer, positions, strict=True):
        if position is None:
            raise ValueError("a position without logprobs")
        own = position[str(token)]
        logprob = _number(own.get("logprob"))
        best = max((_number(each.get("logprob")) for each in position.values()), default=math.nan)
        told.logprobs.append(logprob)
        told.ranks.append(_number(own.get("rank")))
        told.margins.append(best - logprob)
        if top:
            listed = {f"{BY_ID}{each}": _number(said.get("logprob")) for each, said in position.items()}
            told.tops.append(likeliest(listed, top))
    return told


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def scores_of(candidate: Candidate, told: Told) -> Scores:
    """Both engines' view of one answer."""
    return Scores(
        candidate=np.array(candidate.logprobs),
        baseline=np.array(told.logprobs),
        margin=np.array(told.margins),
        rank=np.nan_to_num(np.array(told.ranks), nan=0).astype(np.int64),
    )


def spread_of_both(candidate: Candidate, told: Told, top: int) -> Spread | None:
    """Of the `top` likeliest tokens of both; None where one did not tell them. Where the client asked for logprobs
    itself, the candidate may have told fewer, or named them by their texts."""
    if not told.tops or len(candidate.tops) != len(told.tops):
        return None
    listed = (each if all(name.startswith(BY_ID) for name in each) else {} for each in candidate.tops)
    return spread_of([likeliest(each, top) for each in listed], told.tops)
