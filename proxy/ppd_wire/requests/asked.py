"""What the proxy asks a decode engine for beyond the client's own wishes.

Two reasons: the next turn of a token-id prompt can only be recognised by the answer's ids, and a sampled answer is
compared with a baseline by its token ids and logprobs. `answers/removal.py` takes both out again on the way back.
Source of which requests allow that without a trace: vLLM 0.32's OpenAI serving code. No IO.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ppd_wire.requests.generation import Fields, Generation, boolean, is_absent

_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal", "thinking"})


class Asked(msgspec.Struct, frozen=True):
    """Fields of an answer that are there for the proxy alone: token ids (of prompt and answer), logprobs."""

    ids: bool
    logprobs: bool

    @property
    def is_anything(self) -> bool:
        return self.ids or self.logprobs


NOTHING = Asked(False, False)
IDS = Asked(True, False)


def asked(request: Generation, *, is_sampled: bool) -> Asked:
    """What the decode leg of `request` asks for; a client's own wish is never changed, nor taken out of its answer."""
    if is_sampled and is_transparent(request):
        return Asked(ids=not request.wants_token_ids, logprobs=not _wants_logprobs(request))
    # An echo stays as it is: asked for token ids, vLLM leaves the prompt's text out of it.
    is_unknown = isinstance(request.prompt, list) and not request.wants_token_ids
    return IDS if is_unknown and not request.is_multi_sequence and not request.echoes_prompt else NOTHING


def is_scorable(request: Generation) -> bool:
    """Whether a baseline can score the answer from token ids alone. Not with images and sound, whose prompt token ids
    say nothing: these can be replayed."""
    return is_transparent(request) and not _has_other_than_text(request.messages)


def is_transparent(request: Generation) -> bool:
    """Whether the client cannot tell that ids and logprobs were asked for; others cannot be sampled.

    Out are: several sequences, beams and prompt embeddings; prompt logprobs and echoes (either turns into the other
    when logprobs are asked for); `include_reasoning: false`, with which vLLM sends neither ids nor logprobs; and what
    an engine refuses only as long as logprobs are not asked for (`top_logprobs` or `logprob_token_ids` without them,
    values that are no boolean).

    A stream of chat events that asks for ids or logprobs has an event for every step, with an empty delta where vLLM
    is silent otherwise; those are dropped. They cannot be told from empty deltas that vLLM sends by itself, so
    requests that lead to such are out: streams with tools and `parallel_tool_calls: false` or `tool_choice: "none"`.
    Two cases cannot be seen in a request, and there an empty delta that means nothing is missing: Mistral's tool parser
    for tokenizers before v11, after its last call; and engine-based tool parsers, when the model calls a tool that it
    was not offered. One more difference: vLLM 0.32 cannot write a NaN logprob into a JSON answer and fails with 500,
    after which the proxy tries again without asking.
    """
    fields = request.fields
    return not (
        request.is_multi_sequence
        or request.wants_prompt_logprobs
        or boolean(fields, "echo", default=False) is not False
        or boolean(fields, "include_reasoning", default=True) is not True
        or boolean(fields, "return_token_ids", default=False) is None
        or boolean(fields, "return_tokens_as_token_ids", default=False) is None
        or _is_left_to_engine(request)
        or _may_send_empty_deltas(request)
    )


def _wants_logprobs(request: Generation) -> bool:
    """Completions: any number, 0 included. Chat: a boolean."""
    if request.kind == "chat":
        return boolean(request.fields, "logprobs", default=False) is True
    return not is_absent(request.fields, "logprobs")


def _is_left_to_engine(request: Generation) -> bool:
    """Logprobs asked for by the proxy would change what the engine makes of the client's own fields."""
    fields = request.fields
    if request.kind == "chat" and boolean(fields, "logprobs", default=False) is None:
        return True
    if _wants_logprobs(request):
        return False
    top = fields.get("top_logprobs")
    has_top = request.kind == "chat" and top is not None and bytes(top) not in (b"null", b"0")
    return has_top or not is_absent(fields, "logprob_token_ids")


def _may_send_empty_deltas(request: Generation) -> bool:
    fields = request.fields
    if request.kind != "chat" or not request.is_stream or is_absent(fields, "tools"):
        return False
    return boolean(fields, "parallel_tool_calls", default=True) is not True or _says_none(fields, "tool_choice")


def _says_none(fields: Fields, name: str) -> bool:
    raw = fields.get(name)
    return raw is not None and bytes(raw) == b'"none"'


def _has_other_than_text(messages: list[dict[str, Any]]) -> bool:
    contents = (message.get("content") for message in messages)
    return any(not _is_text(part) for content in contents if isinstance(content, list) for part in content)


def _is_text(part: object) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and part.get("type") in _TEXT_PARTS)
