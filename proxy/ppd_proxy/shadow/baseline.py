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
import numpy as np

from ppd_proxy.accuracy.scores import Scores
from ppd_proxy.core.candidate import Candidate, read_candidate
from ppd_proxy.core.chat import Kind
from ppd_proxy.upstream.client import engine_headers

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
    """A check that came to nothing. `reason` is a word for the metric."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


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

    async def score(self, model: str, prompt: Sequence[int], answer: Sequence[int]) -> tuple[list[float], ...]:
        """Logprob, rank and margin of each answer token, in one prefill. Raises BaselineError."""
        body = {
            "model": model,
            "prompt": [*prompt, *answer],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 1,
        }
        told = await self._post("/v1/completions", _encoder.encode(body))
        try:
            # Of the prompt's own positions, which are most of it, nothing is read.
            raw = _scored.decode(told).choices[0].prompt_logprobs[len(prompt) :]
            return read_positions([_positions.decode(each) for each in raw], answer)
        except (msgspec.DecodeError, LookupError, TypeError, ValueError) as error:
            raise BaselineError("bad_answer", f"no prompt logprobs of the answer: {error}") from None

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
                        raise BaselineError("bad_answer", f"{url}{path} answered more than {_MAX_ANSWER_BYTES} bytes")
        except TimeoutError:
            raise BaselineError("baseline_slow", f"{url} took more than {self._timeout.total:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            self._down_until[url] = asyncio.get_running_loop().time() + _DOWN_FOR_S
            raise BaselineError("baseline_down", f"{url}: {error}") from None
        finally:
            self._inflight[url] -= 1
        if response.status != 200:
            reason = "refused" if 400 <= response.status < 500 else "baseline_error"
            raise BaselineError(reason, f"{url}{path} answered {response.status}")  # its text may quote the prompt
        return told


def read_positions(
    positions: Sequence[Mapping[str, Mapping[str, Any]] | None], answer: Sequence[int]
) -> tuple[list[float], ...]:
    """Logprobs, ranks and margins of `answer` from vLLM's `prompt_logprobs`; NaN where there is no number."""
    if len(positions) != len(answer):
        raise ValueError(f"{len(positions)} positions for {len(answer)} tokens")
    logprobs: list[float] = []
    ranks: list[float] = []
    margins: list[float] = []
    for token, position in zip(answer, positions, strict=True):
        if position is None:
            raise ValueError("a position without logprobs")
        own = position[str(token)]
        logprob = _number(own.get("logprob"))
        best = max((_number(each.get("logprob")) for each in position.values()), default=math.nan)
        logprobs.append(logprob)
        ranks.append(_number(own.get("rank")))
        margins.append(best - logprob)
    return logprobs, ranks, margins


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def scores_of(candidate: Candidate, told: tuple[list[float], ...]) -> Scores:
    """Both engines' view of one answer."""
    logprobs, ranks, margins = told
    return Scores(
        candidate=np.array(candidate.logprobs),
        baseline=np.array(logprobs),
        margin=np.array(margins),
        rank=np.nan_to_num(np.array(ranks), nan=0).astype(np.int64),
    )
