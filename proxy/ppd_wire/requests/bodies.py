"""The bodies of a request's legs: what is asked of the prefill and of the decode engine."""

from __future__ import annotations

import msgspec

from ppd_wire.requests.asked import Asked
from ppd_wire.requests.generation import KV_PARAMS, Generation, add_salt, object_in

_TRUE, _ONE = msgspec.Raw(b"true"), msgspec.Raw(b"1")
_encoder = msgspec.json.Encoder()
PREFILL_DROPPED = frozenset({
    # vLLM refuses min_tokens > max_tokens and stream_options without stream (vllm#16705)
    "min_tokens", "stream", "stream_options", "best_of",
    # sampling side: the prefill engine's one token is thrown away
    "logprobs", "top_logprobs", "prompt_logprobs", "echo", "return_token_ids", "stop", "stop_token_ids",
    "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
    "guided_decoding_backend", "guided_whitespace_pattern",
})  # fmt: skip
"""Fields that never change the rendered prompt. `tools`, `tool_choice`, `response_format` and everything unknown may,
so they stay: both legs must render to the same token ids."""


def prefill_body(request: Generation, params: bytes | None, *, salt: str | None = None) -> bytes:
    """The prefill leg: the same prompt, one token, no stream; `params` are the handoff's `kv_transfer_params`.
    A release leg is the same at the decode engine, with that engine's `salt`."""
    fields = {name: raw for name, raw in request.fields.items() if name not in PREFILL_DROPPED}
    fields["max_tokens"] = _ONE
    if "max_completion_tokens" in fields:
        fields["max_completion_tokens"] = _ONE
    if "n" in fields:
        fields["n"] = _ONE
    if salt is not None:
        add_salt(fields, salt)
    if params is not None:
        fields[KV_PARAMS] = msgspec.Raw(params)
    return _encoder.encode(fields)


def decode_body(
    request: Generation, params: bytes | None, asked: Asked, *, top_logprobs: int = 0, salt: str | None = None
) -> bytes:
    """The decode leg: the client's own body, byte for byte where nothing has to change.

    Streams also ask for usage (the proxy's token figures), which is taken out again on the way to a client who did
    not; so is what is `asked` for. `top_logprobs`: how many of the likeliest tokens asked logprobs come with, at most
    the engine's --max-logprobs; where there are any, tokens are named by their ids. `salt` keeps KV apart that was made
    before and after the guard acted.
    """
    asks_usage = request.is_stream and not request.wants_usage
    if params is None and not asks_usage and not asked.is_anything and salt is None and not request.is_rewritten:
        return request.body
    fields = dict(request.fields)
    if asks_usage:
        fields["stream_options"] = _with_usage(fields.get("stream_options"))
    if asked.ids:
        fields["return_token_ids"] = _TRUE
    if asked.logprobs:
        top = msgspec.Raw(b"%d" % top_logprobs)
        fields |= {"logprobs": _TRUE, "top_logprobs": top} if request.kind == "chat" else {"logprobs": top}
        if top_logprobs:
            fields["return_tokens_as_token_ids"] = _TRUE
    if salt is not None:
        add_salt(fields, salt)
    if params is not None:
        fields[KV_PARAMS] = msgspec.Raw(params)
    return _encoder.encode(fields)


def _with_usage(raw: msgspec.Raw | None) -> msgspec.Raw:
    """Usage at the end only: a client that did not ask for usage gets none in its chunks."""
    options = {**(object_in(raw) or {}), "include_usage": _TRUE}
    options.pop("continuous_usage_stats", None)
    return msgspec.Raw(_encoder.encode(options))
