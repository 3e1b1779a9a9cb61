"""A view of a generation request's JSON body, and of an engine's JSON answer.

Owns: which fields decide how a request is served, and how the bodies of both legs are made from the client's. Values
are kept as raw JSON bytes, so what the proxy does not know survives untouched. Knows nothing of engines or routes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from ppd_wire.errors import BadRequest
from ppd_wire.json.broken import BROKEN

Kind = Literal["chat", "completion"]
Fields = dict[str, msgspec.Raw]

KV_PARAMS = "kv_transfer_params"
REQUEST_ID = "request_id"
CACHE_SALT = "cache_salt"
SCOPE_FIELDS = (
    CACHE_SALT,
    "tools",
    "chat_template",
    "chat_template_kwargs",
    "documents",
    "mm_processor_kwargs",
    "prompt_cache_key",
)
"""Body fields, beside `model`, that separate histories: they change the prompt from its first token, or the client uses
them to tell its conversations apart."""
MAX_SALT_CHARS = 128
"""vLLM 0.32 refuses longer salts (entrypoints/generate/base/protocol.py)."""


_PLAIN_FIELDS = frozenset({
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p",
    "seed", "stop", "stream", "presence_penalty", "frequency_penalty", "repetition_penalty", "user", "tools",
    "tool_choice", "parallel_tool_calls", "reasoning_effort", "response_format",
})  # fmt: skip
"""Of these only `stream` decides anything. Most requests have no others: no need to look for what could be there."""
_OURS_SUFFIX = "_transfer_params"
_ARGUMENTS = frozenset({"vllm_xargs", "extra_args", "sampling_params"})
"""Fields whose members vLLM reads as if they stood in SamplingParams, handoff parameters too (v1/request.py)."""
_ARGUMENT_LEVELS = 2
"""`sampling_params` has `extra_args`; nothing is read below these."""

_MAX_ARGUMENTS_BYTES = 131072
_MAX_WORD_BYTES = 16
_TRUTHY = frozenset({b"true", b"1", b"1.0", b"yes", b"on", b"y", b"t"})
_FALSY = frozenset({b"false", b"0", b"0.0", b"no", b"off", b"n", b"f"})
_NULL = b"null"
_fields = msgspec.json.Decoder(Fields)
_messages = msgspec.json.Decoder(list[dict[str, Any]])
_prompt = msgspec.json.Decoder(str | list[int | str | list[int]])
_text = msgspec.json.Decoder(str)
_encoder = msgspec.json.Encoder()


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One parsed generation request.

    `messages` for chat, `prompt` (one text or one list of token ids) for completions; both are empty when the request
    holds several sequences. `fields` are the raw JSON values of the client's body without what is the proxy's alone
    and the fields to strip; `is_rewritten` says that `body` cannot be sent as it came. In large bodies
    long texts are `bytes` in UTF-8 (see `requests`).
    """

    kind: Kind
    body: bytes
    fields: Fields
    is_rewritten: bool
    is_stream: bool
    is_multi_sequence: bool
    messages: list[dict[str, Any]]
    prompt: str | bytes | list[int]
    choices: int = 1
    wants_prompt_logprobs: bool = False
    wants_usage: bool = False
    wants_token_ids: bool = False

    @property
    def prompt_depends_on_output(self) -> bool:
        """The prompt is cut to a length that follows from `max_tokens`, which the prefill leg changes.

        So it is in vLLM with `truncate_prompt_tokens: -1`: 0.32 keeps one token less where the request bounds its
        answer (renderers/params.py, `max_truncation_tokens`), others keep the model's length less `max_tokens`.
        pydantic takes more than `-1` for it, such as `"-1"` and `-1.0`; a length of its own, in digits, is safe.
        """
        return not is_absent(self.fields, "truncate_prompt_tokens") and not bytes(
            self.fields["truncate_prompt_tokens"]
        ).isdigit()

    @property
    def continues_answer(self) -> bool:
        """The last message is the assistant's and the engine is asked to go on with it."""
        return flag(self.fields, "continue_final_message")

    @property
    def echoes_prompt(self) -> bool:
        return self.kind == "completion" and flag(self.fields, "echo")


def parse(kind: Kind, body: bytes, stripped: frozenset[str] = frozenset()) -> Generation:
    """The view of `body`; raises BadRequest naming what is wrong. What only an engine can judge is left to it."""
    fields = decode_fields(body)
    is_rewritten = take_out(fields, stripped)
    if kind == "chat":
        messages = _parse_messages(given_messages(fields))
        return view(kind, body, fields, messages, "", is_rewritten=is_rewritten, several=False)
    raw = given_prompt(fields)
    prompt, several = ("", True) if raw is None else _parse_prompt(raw)
    return view(kind, body, fields, [], prompt, is_rewritten=is_rewritten, several=several)


def view(
    kind: Kind,
    body: bytes,
    fields: Fields,
    messages: list[dict[str, Any]],
    prompt: str | bytes | list[int],
    *,
    is_rewritten: bool,
    several: bool,
) -> Generation:
    """What `parse` gives, once messages or prompt are read. `several`: `prompt` holds more than one sequence."""
    if _PLAIN_FIELDS.issuperset(fields):
        return Generation(
            kind=kind,
            body=body,
            fields=fields,
            is_rewritten=is_rewritten,
            is_stream=flag(fields, "stream"),
            is_multi_sequence=several,
            messages=messages,
            prompt=prompt,
        )
    return Generation(
        kind=kind,
        body=body,
        fields=fields,
        is_rewritten=is_rewritten,
        is_stream=flag(fields, "stream"),
        is_multi_sequence=several or _asks_for_several(fields),
        choices=_choices(fields),
        wants_prompt_logprobs=_wants_prompt_logprobs(fields),
        wants_usage=_wants_usage(fields),
        wants_token_ids=flag(fields, "return_token_ids"),
        messages=messages,
        prompt=prompt,
    )


def given_messages(fields: Fields) -> msgspec.Raw:
    raw = fields.get("messages")
    if raw is None:
        raise BadRequest("messages is missing: give a list of messages", param="messages")
    return raw


def given_prompt(fields: Fields) -> msgspec.Raw | None:
    """None beside embeddings, which vLLM serves as a sequence of their own."""
    if not is_absent(fields, "prompt_embeds"):
        return None
    raw = fields.get("prompt")
    if raw is None or bytes(raw) == _NULL:
        raise BadRequest("prompt is missing: give a text or a list of token ids", param="prompt")
    return raw


def wrong_messages(error: object) -> BadRequest:
    return BadRequest(f"messages must be a list of objects: {error}", param="messages")


def wrong_prompt(error: object) -> BadRequest:
    return BadRequest(f"prompt must be a text, a list of token ids, or a list of either: {error}", param="prompt")


def _parse_messages(raw: msgspec.Raw) -> list[dict[str, Any]]:
    try:
        return _messages.decode(raw)
    except BROKEN as error:
        raise wrong_messages(error) from None


def _parse_prompt(raw: msgspec.Raw) -> tuple[str | list[int], bool]:
    """The one sequence of `prompt`, and whether there are several."""
    try:
        prompt = _prompt.decode(raw)
    except BROKEN as error:
        raise wrong_prompt(error) from None
    if isinstance(prompt, str):
        return prompt, False
    ids = [item for item in prompt if isinstance(item, int)]
    if len(ids) == len(prompt):
        return ids, False
    only = prompt[0]
    return ("", True) if len(prompt) > 1 or isinstance(only, int) else (only, False)


def _asks_for_several(fields: Fields) -> bool:
    """More than one sequence: a KV handoff carries exactly one."""
    for name in ("n", "best_of"):
        raw = fields.get(name)
        if raw is not None and bytes(raw) not in (b"1", _NULL):
            return True
    return flag(fields, "use_beam_search")


def _choices(fields: Fields) -> int:
    """`n`: how often the engine works through each prompt, whose tokens `usage` counts once."""
    raw = bytes(fields.get("n", b"1"))
    return max(1, int(raw)) if len(raw) < 6 and raw.isdigit() else 1


def _wants_prompt_logprobs(fields: Fields) -> bool:
    """Logprobs of prompt tokens: the decode engine cannot make them for transferred tokens (vllm#50792)."""
    if not is_absent(fields, "prompt_logprobs"):
        return True
    logprobs = fields.get("logprobs")
    return logprobs is not None and bytes(logprobs) not in (_NULL, b"false") and flag(fields, "echo")


def _wants_usage(fields: Fields) -> bool:
    options = object_in(fields.get("stream_options"))
    return options is not None and flag(options, "include_usage")


def flag(fields: Fields, name: str) -> bool:
    """A boolean as vLLM reads it: pydantic takes more than `true` for true."""
    raw = fields.get(name)
    if raw is None:
        return False
    value = bytes(raw)
    return value == b"true" or (len(value) < _MAX_WORD_BYTES and value.strip(b'"').lower() in _TRUTHY)


def boolean(fields: Fields, name: str, *, default: bool) -> bool | None:
    """As `flag`, with `default` for what is absent or null; None for a value that vLLM may not take for a boolean."""
    if is_absent(fields, name):
        return default
    if flag(fields, name):
        return True
    return False if bytes(fields[name]).strip(b'"').lower() in _FALSY else None


def is_absent(fields: Fields, name: str) -> bool:
    raw = fields.get(name)
    return raw is None or bytes(raw) == _NULL


def object_in(raw: msgspec.Raw | None) -> Fields | None:
    """The members of a JSON object; None for anything else, which is left to the engine."""
    try:
        return _fields.decode(raw) if raw is not None else None
    except BROKEN:
        return None


def add_salt(fields: Fields, salt: str) -> None:
    """Put `salt` before the client's own. What vLLM refuses as a salt is left for it to refuse."""
    raw = fields.get(CACHE_SALT)
    own = ""
    if raw is not None and bytes(raw) != _NULL:
        try:
            own = _text.decode(raw)
        except BROKEN:
            return
        if not own:
            return
    both = f"{salt}:{own}" if own else salt
    if len(both) > MAX_SALT_CHARS >= len(own) and not set(own) & set("@/\\\0"):
        digest = hashlib.blake2b(own.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        both = f"{salt}:{digest}"
    fields[CACHE_SALT] = msgspec.Raw(_encoder.encode(both))


def take_out(fields: Fields, stripped: frozenset[str]) -> bool:
    """Remove what no client may send to an engine: by what engines are told what to do with KV, and under which id,
    which only the proxy says; and the operator's list. Returns whether the body has to be written anew.

    That is so wherever there are arguments, even harmless ones: of two fields with one name an engine reads the last,
    or another, and then none but that one is left.
    """
    if not stripped and _PLAIN_FIELDS.issuperset(fields):
        return False
    taken = _ours(fields)
    if stripped:
        taken += [name for name in stripped if name in fields and name not in taken]
    for name in taken:
        del fields[name]
    if _ARGUMENTS.isdisjoint(fields):
        return bool(taken)
    for name in _ARGUMENTS & fields.keys():
        fields[name] = _without_ours(name, fields[name], _ARGUMENT_LEVELS)
    return True


def _ours(fields: Fields) -> list[str]:
    """Names by which engines are told what to do with KV, and under which id."""
    return [name for name in fields if name.endswith(_OURS_SUFFIX) or name == REQUEST_ID]


def _without_ours(field: str, raw: msgspec.Raw, levels: int) -> msgspec.Raw:
    if memoryview(raw).nbytes > _MAX_ARGUMENTS_BYTES:
        raise BadRequest(f"{field} is longer than {_MAX_ARGUMENTS_BYTES} bytes", param=field)
    members = object_in(raw)
    if members is None:
        return raw
    for name in _ours(members):
        del members[name]
    if levels > 1:
        for name in _ARGUMENTS & members.keys():
            members[name] = _without_ours(field, members[name], levels - 1)
    return msgspec.Raw(_encoder.encode(members))


def decode_fields(body: bytes) -> Fields:
    try:
        return _fields.decode(body)
    except BROKEN as error:
        raise BadRequest(f"the request body must be a JSON object: {error}") from None


def thought_of(message: Mapping[str, Any]) -> Any:
    """A message's reasoning, by whichever of its names; falsy where there is none."""
    return message.get("reasoning") or message.get("reasoning_content")
