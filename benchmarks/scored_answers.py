"""Answers of an engine with token ids and logprobs, and scores of them; as vLLM gives them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

FIRST_TOKEN: Final = 1000
TOKEN_STEP: Final = 7
_HEAD: Final = {"id": "chatcmpl-instant", "created": 1, "model": "instant"}


def _token(place: int, rank: int = 0) -> int:
    return FIRST_TOKEN + TOKEN_STEP * place + rank


def _logprob(place: int, rank: int) -> float:
    return -0.0312500123 - 1.7320508 * rank - place * 1e-5


def _entry(place: int, rank: int) -> dict[str, Any]:
    return {"token": f"token_id:{_token(place, rank)}", "logprob": _logprob(place, rank), "bytes": None}


def _named(place: int, tops: int) -> dict[str, Any]:
    """A token of the answer, with as many of the likeliest as asked for."""
    return {**_entry(place, 0), "top_logprobs": [_entry(place, rank) for rank in range(tops)]}


def _usage(prompt_tokens: int, tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}


def chat_answer(prompt_tokens: int, tokens: int, *, tops: int, text: str) -> dict[str, Any]:
    """As vLLM answers with return_token_ids and return_tokens_as_token_ids: `tops` likeliest tokens each."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "reasoning": None, "tool_calls": []},
        "logprobs": {"content": [_named(place, tops) for place in range(tokens)]},
        "finish_reason": "length",
        "token_ids": [_token(place) for place in range(tokens)],
    }
    shared = {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _usage(prompt_tokens, tokens)}
    return {**shared, "prompt_token_ids": list(range(1, prompt_tokens + 1))}


def completion_answer(prompt: Sequence[int], tokens: int) -> dict[str, Any]:
    """The same tokens after a prompt of token ids."""
    named = [_entry(place, 0) for place in range(tokens)]
    logprobs = [each["logprob"] for each in named]
    choice = {
        "index": 0,
        "text": "w" * tokens,
        "logprobs": {"tokens": [each["token"] for each in named], "token_logprobs": logprobs, "top_logprobs": None},
        "finish_reason": "length",
        "token_ids": [_token(place) for place in range(tokens)],
        "prompt_token_ids": list(prompt),
    }
    return {**_HEAD, "object": "text_completion", "choices": [choice], "usage": _usage(len(prompt), tokens)}


def chat_events(prompt_tokens: int, tokens: int, *, text: str) -> Iterator[dict[str, Any]]:
    """The same answer as a stream of `tokens` events, one token each; the whole text is in the first."""
    for place in range(tokens):
        is_first, is_last = place == 0, place == tokens - 1
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": text} if is_first else {"content": ""},
            "logprobs": {"content": [_named(place, 0)]},
            "finish_reason": "stop" if is_last else None,
            "token_ids": [_token(place)],
        }
        told = {**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}
        yield {**told, "prompt_token_ids": list(range(1, prompt_tokens + 1))} if is_first else told


def score_answer(prompt_tokens: int, tokens: int, *, tops: int) -> dict[str, Any]:
    """Prompt logprobs of the prompt and that answer, the same to the last digit: a baseline that agrees."""
    entries: list[dict[str, Any] | None] = [None] * prompt_tokens
    for place in range(tokens):
        ranked = {str(_token(place, r)): {"logprob": _logprob(place, r), "rank": r + 1} for r in range(tops)}
        entries.append(ranked)
    return {"id": "cmpl-instant", "choices": [{"index": 0, "text": " w", "prompt_logprobs": entries}]}


def score_of(prompt: Sequence[int]) -> dict[str, Any]:
    """The same for a prompt of any token ids, those of our answers among them: what each is likely by, and it alone."""
    entries: list[dict[str, Any] | None] = [None]
    for token in prompt[1:]:
        logprob = _logprob((token - FIRST_TOKEN) // TOKEN_STEP, 0) if token >= FIRST_TOKEN else -1.0
        entries.append({str(token): {"logprob": logprob, "rank": 1}})
    return {"id": "cmpl-instant", "choices": [{"index": 0, "text": " w", "prompt_logprobs": entries}]}
