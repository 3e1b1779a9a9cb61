"""What an engine is asked so that another one's answer can be checked: scores of given tokens, the same request again,
an answer of its own. Field names: vLLM 0.32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ppd_wire.requests.generation import Fields, Kind

REPLAYED_TOPS = 5
"""The likeliest tokens that a repeated request asks for."""
_SAMPLING = ("temperature", "top_p", "top_k", "min_p")
_NOT_REPEATED = ("stream", "stream_options", "cache_salt")


def score_body(model: str, prompt: Sequence[int], answer: Sequence[int], count: int) -> dict[str, Any]:
    """One prefill over prompt and answer (teacher forcing), which tells the `count` likeliest tokens of each place."""
    return {
        "model": model,
        "prompt": [*prompt, *answer],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": count,
    }


def replay_body(kind: Kind, fields: Fields) -> dict[str, Any]:
    """A client's request, answered as JSON with token ids and logprobs."""
    body: dict[str, Any] = {name: raw for name, raw in fields.items() if name not in _NOT_REPEATED}
    body |= {"return_token_ids": True, "return_tokens_as_token_ids": True}
    if kind == "chat":
        return body | {"logprobs": True, "top_logprobs": REPLAYED_TOPS}
    return body | {"logprobs": REPLAYED_TOPS}


def answer_body(model: str, prompt: Sequence[int], max_tokens: int, fields: Fields) -> dict[str, Any]:
    """An answer to these token ids, sampled as a client's request was, with its tokens' logprobs."""
    return {
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        **{name: msgspec.json.decode(fields[name]) for name in _SAMPLING if name in fields},
        "logprobs": 0,
        "return_token_ids": True,
    }
