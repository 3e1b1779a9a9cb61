"""What the accuracy commands ask an engine: questions with token ids and logprobs, and what goes with them.

Field names: vLLM 0.32; engines that know less leave out what they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ppd_wire.requests.generation import CACHE_SALT, KV_PARAMS

COUNTED_PARTS = ("model", "messages", "prompt", "tools", "chat_template_kwargs")
"""What /tokenize takes of a request, beside its own fields."""
BARE: Mapping[str, None] = MappingProxyType({"logprobs": None, "top_logprobs": None})
BY_NAME: Mapping[str, bool] = MappingProxyType({"return_token_ids": False, "return_tokens_as_token_ids": False})
"""Tokens by their texts, as engines without ids tell them."""
HELD_FOR_ANOTHER: Mapping[str, Any] = MappingProxyType(
    {KV_PARAMS: {"do_remote_decode": True, "do_remote_prefill": False}}
)
"""The offer that another engine decodes on (NIXL's)."""


def chat_part(messages: Sequence[Mapping[str, Any]], count: int) -> dict[str, Any]:
    """The messages, and `count` logprobs for each token of the answer."""
    return {"messages": messages, "logprobs": True, "top_logprobs": count}


def completion_part(prompt: str | Sequence[int] | None, count: int) -> dict[str, Any]:
    """The prompt, and `count` logprobs for each token of the answer."""
    return {"prompt": prompt, "logprobs": count}


def with_ids(body: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens by their ids."""
    return {**body, "return_token_ids": True, "return_tokens_as_token_ids": True}


def streamed(body: Mapping[str, Any]) -> dict[str, Any]:
    """As a stream, with usage at its end."""
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


def without_logprobs(*, is_chat: bool) -> dict[str, Any]:
    return {"logprobs": False, "top_logprobs": None} if is_chat else {"logprobs": None}


def one_token(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The request's other fields, and one token of an answer whatever they asked for."""
    kept = {name: value for name, value in fields.items() if name != "max_completion_tokens"}
    return {**kept, "max_tokens": 1, "min_tokens": 0}


def salted(salt: str) -> dict[str, Any]:
    """KV that is found under this salt only."""
    return {CACHE_SALT: salt}


def is_held_for_another(answer: object) -> bool:
    """Whether a prefill holds its KV for another engine (NIXL's)."""
    params = answer.get(KV_PARAMS) if isinstance(answer, dict) else None
    return isinstance(params, dict) and bool(params.get("remote_engine_id"))
