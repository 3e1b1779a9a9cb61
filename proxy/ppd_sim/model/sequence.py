"""Decoding one answer, token by token, and scoring a prompt: what the simulated engine computes, no IO."""

from __future__ import annotations

import codecs
from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from ppd_sim.model.body import GenerationRequest
from ppd_sim.model.model import Model, SamplingRules, Scored, TokenHistory, draw
from ppd_sim.model.tokens import EOS_ID, Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What one decoding step adds. `scores` has, per token, the sampled token first and then the most likely ones."""

    token_ids: list[int]
    text: str
    scores: list[list[Scored]] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class Decoding:
    """The state of one choice of one prompt."""

    def __init__(
        self, model: Model, tokenizer: Tokenizer, request: GenerationRequest, *, prompt: int, choice: int, seed: int
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._request = request
        self._max_tokens = request.max_tokens[prompt]
        self._history = TokenHistory(model.weights_seed(request.adapter), request.prompts[prompt])
        self._sampling = SamplingRules(
            temperature=request.temperature, top_p=request.top_p, top_k=request.top_k, seed=seed, choice=choice
        )
        self._held_back = 0 if request.keeps_stop else max((len(stop) - 1 for stop in request.stop), default=0)
        self._text = ""
        self._pieces = codecs.getincrementaldecoder("utf-8")("replace")
        self._emitted_chars = 0
        self.token_ids: list[int] = []

    def corrupt(self) -> None:
        """Go on as if the KV cache held another sequence."""
        self._history.append(0)

    def step(self) -> Decoded:
        """The next token; the step with a `finish_reason` is the last one."""
        if not self._max_tokens:
            return Decoded(token_ids=[], text="", scores=[], finish_reason="length")
        position = self._history.position()
        banned = self._banned()
        request = self._request
        scores: list[list[Scored]] | None = None
        if request.temperature < 1e-5 and request.logprobs is None:
            token_id = self._model.top_token(position, banned)
        else:
            ranked = self._model.decode_scores(position, banned)
            sampled = draw(ranked, self._sampling, len(self.token_ids))
            token_id = sampled.token_id
            if request.logprobs is not None:
                scores = [with_top(sampled, ranked, request.logprobs)]
        self._history.append(token_id)
        self.token_ids.append(token_id)
        finish_reason, stop_reason = self._finish(token_id)
        return Decoded(
            token_ids=[token_id],
            text=self._take_text(is_last=finish_reason is not None),
            scores=scores,
            finish_reason=finish_reason,
            stop_reason=stop_reason,
        )

    def _banned(self) -> tuple[int, ...]:
        if len(self.token_ids) >= self._request.min_tokens:
            return ()
        return (EOS_ID, *self._request.stop_token_ids)

    def _finish(self, token_id: int) -> tuple[str | None, int | str | None]:
        if token_id == EOS_ID:
            if not self._request.ignores_eos:
                return "stop", None
        elif token_id in self._request.stop_token_ids:
            self._text += self._tokenizer.decode((token_id,)) if self._request.keeps_stop else ""
            return "stop", token_id
        else:
            self._text += self._pieces.decode(self._tokenizer.text_bytes(token_id))  # a whole character or nothing
            stop = self._find_stop()
            if stop is not None:
                return "stop", stop
        return ("length", None) if len(self.token_ids) >= self._max_tokens else (None, None)

    def _find_stop(self) -> str | None:
        if not self._request.stop or len(self.token_ids) < self._request.min_tokens:
            return None
        places = [(self._text.find(stop), stop) for stop in self._request.stop if stop in self._text]
        if not places:
            return None
        place, stop = min(places)
        self._text = self._text[: place + len(stop) if self._request.keeps_stop else place]
        return stop

    def _take_text(self, *, is_last: bool) -> str:
        end = len(self._text) if is_last else max(self._emitted_chars, len(self._text) - self._held_back)
        text = self._text[self._emitted_chars : end]
        self._emitted_chars = end
        return text


def with_top(sampled: Scored, ranked: Tokens[Scored], top: int) -> list[Scored]:
    """The sampled token, then the `top` most likely ones without it; -1 means all that are known."""
    kept = ranked if top < 0 else ranked[:top]
    return [sampled, *(score for score in kept if score.token_id != sampled.token_id)]


def score_prompt(model: Model, adapter: str | None, prompt: Tokens[int], top: int) -> list[list[Scored] | None]:
    """Per prompt token its own score and the `top` most likely ones; None for the first token, as vLLM answers."""
    history = TokenHistory(model.weights_seed(adapter))
    scored: list[list[Scored] | None] = []
    for place, token_id in enumerate(prompt):
        if place:
            position = history.position()
            ranked = model.prefill_scores(position)
            own = next((score for score in ranked if score.token_id == token_id), None)
            scored.append(with_top(own or model.tail_score(position, token_id), ranked, top))
        else:
            scored.append(None)
        history.append(token_id)
    return scored
