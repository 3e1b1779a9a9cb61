"""Digests of a conversation's history: equal history, equal digest, whatever spelling the client chose.

Owns the canonical form of a scope, of a chat message and of a raw prompt. Knows nothing of engines and remembers
nothing (`conversations` does). Every digest is 16 bytes of xxh3_128; a step's digest covers the scope and everything
before it, so one equal digest means that the whole prefix is equal.

Framing: the parts of a canonical form are UTF-8 text or UTF-8 JSON, in which the bytes 0xF5 to 0xFF never occur. Those
bytes are the separators, so two different messages never give the same bytes.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import msgspec
from xxhash import xxh3_128_digest

from ppd_wire.json.broken import BROKEN
from ppd_wire.requests.generation import SCOPE_FIELDS, thought_of

BLOCK_UNITS: Final = 1024
"""Raw prompts are hashed in blocks of so many units. A unit is one UTF-8 byte of a text or one token id."""
FINE_UNITS: Final = 64
"""Inside its last block the end of an answer is found in steps of so many units."""

_TEXT: Final = b"\xff"
_PART: Final = b"\xfe"
_FIELD: Final = b"\xfd"
_CALL: Final = b"\xfc"
_PLAIN: Final[Mapping[str, bytes]] = MappingProxyType(
    {role: role.encode() + _TEXT for role in ("system", "developer", "user", "assistant", "tool")}
)
"""How the canonical form of a message with nothing but text begins: what nearly all messages are."""
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})
_ASSISTANT_FIELDS: Final = frozenset({"name", "function_call"})
_NOT_FIELDS: Final = frozenset({"role", "content"})
_SCOPE_FIELDS: Final = frozenset(SCOPE_FIELDS)
_EMPTY_JSON: Final = frozenset({b"null", b"[]", b"{}", b'""'})

MAX_CANONICAL_BYTES: Final = 131072
"""JSON beyond is compared as it is written: making one form of it takes a millisecond for every few kilobytes."""
_encode_json: Final = msgspec.json.Encoder(order="deterministic").encode
_decode_json: Final = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedAnswer:
    """The assistant message of an engine's answer, as a client would send it back. `tool_calls` in OpenAI's form."""

    content: str | None = None
    reasoning: str | None = None
    tool_calls: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSteps:
    """Digests of the history that ends in one answer: `full` as the engine gave it, `stripped` as clients send it back
    without the reasoning. The engine's KV covers the answer only in the `full` form: in the others the reasoning lies
    between the prompt and the text."""

    full: bytes
    stripped: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSteps:
    """A raw prompt, hashed. `data` is UTF-8 text or token ids as little-endian uint32; `blocks[i]` is the digest of its
    first `i * BLOCK_UNITS` units (`blocks[0]` of the scope alone)."""

    data: bytes
    unit_bytes: int
    blocks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawEnd:
    """Where a remembered raw text ends: `exact` is the digest of all of it, `block` that of its full blocks and `fine`
    that of its full fine steps, of which `fine_count` lie in the last block; `tail_units` follow them."""

    block: bytes
    fine_count: int
    fine: bytes
    tail_units: int
    exact: bytes


def scope(*, api_key: str, fields: Mapping[str, msgspec.Raw], explicit_id: str = "") -> bytes:
    """Digest of everything that keeps two equal histories apart.

    `api_key` is the client's key or authorization value, `fields` the top-level fields of the body as raw JSON, of
    which `model` and `SCOPE_FIELDS` count. Key order and white space make no difference; `null`, `[]`, `{}` and `""`
    equal absence. `explicit_id` is a conversation id sent in a header. JSON that does not decode (broken UTF-8) is
    hashed as it is: refusing it is the engine's business. So is what is longer than MAX_CANONICAL_BYTES.
    """
    model = bytes(fields.get("model", b""))
    digest = xxh3_128_digest(
        api_key.encode("utf-8", "surrogatepass") + _TEXT + (_canonical_json(model) if model.find(b"\\") >= 0 else model)
    )
    if not explicit_id and _SCOPE_FIELDS.isdisjoint(fields):
        return digest
    parts = [digest]
    for position, name in enumerate(SCOPE_FIELDS):
        raw = fields.get(name)
        if raw is not None:
            value = _canonical_json(bytes(raw))
            if value not in _EMPTY_JSON:
                parts += (_frame(position, value), value)
    if explicit_id:
        value = explicit_id.encode("utf-8", "surrogatepass")
        parts += (_frame(len(SCOPE_FIELDS), value), value)
    return xxh3_128_digest(b"".join(parts)) if len(parts) > 1 else digest


def chat_steps(scope: bytes, messages: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """The digest of the history up to and including each message.

    Equal are: content that is missing, None or empty; a list of one text part and that text; `reasoning` and
    `reasoning_content`; tool-call arguments as an object and as JSON text. Fields that are None or empty do not count.
    Of an assistant message only content, reasoning, tool calls, `name` and `function_call` count, because clients send
    answers back with or without the other fields an answer carries. Of other messages every field counts. Texts may be
    `bytes`, in UTF-8; values may be raw JSON.
    """
    digest = scope
    steps = []
    for message in messages:
        if len(message) == 2:
            try:  # a role and a text, as most have; with no such role, no `encode`, or half a character it is none
                digest = xxh3_128_digest(digest + _PLAIN[message["role"]] + message["content"].encode())
            except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
                digest = chat_step(digest, message, _canonical_content(message.get("content")))
        else:
            digest = chat_step(digest, message, _canonical_content(message.get("content")))
        steps.append(digest)
    return steps


def chat_step(digest: bytes, message: Mapping[str, Any], content: bytes) -> bytes:
    """As `chat_steps` for one message after the step `digest`, whose content was put into one form already."""
    return xxh3_128_digest(b"".join((digest, *_canonical_message(message, content))))


def last_assistant(messages: Sequence[Mapping[str, Any]]) -> int:
    """Index of the last assistant message, -1 without one."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].get("role") == "assistant":
            return index
    return -1


def answer_steps(previous: bytes, answer: RememberedAnswer) -> AnswerSteps:
    """The digests under which an answer may come back, `previous` being the last step of its prompt.

    Reasoning is the field of that name, or what precedes `</think>` at the start of the content. Clients that remove
    it often remove the white space around the rest too, so those forms count as well.
    """
    content = answer.content or ""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if answer.tool_calls:
        message["tool_calls"] = answer.tool_calls
    visible = _without_think_block(content) if "</think>" in content else content
    if not answer.reasoning and visible == content:
        return AnswerSteps(full=chat_steps(previous, (message,))[0])
    full = chat_steps(previous, ({**message, "reasoning": answer.reasoning},))[0]
    forms = dict.fromkeys((visible, visible.lstrip(), visible.strip()))
    digests = [chat_steps(previous, ({**message, "content": form},))[0] for form in forms]
    return AnswerSteps(full=full, stripped=tuple(digest for digest in digests if digest != full))


def raw_steps(scope: bytes, prompt: str | bytes | Sequence[int]) -> RawSteps:
    """Hash a raw prompt: a text (bytes: in UTF-8), or token ids. Raises ValueError for ids that are no unsigned 32-bit
    integers."""
    unit_bytes = 1 if isinstance(prompt, str | bytes) else 4
    data = raw_bytes(prompt)
    blocks = roll(raw_start(scope, unit_bytes), data, BLOCK_UNITS * unit_bytes)
    return RawSteps(data=data, unit_bytes=unit_bytes, blocks=blocks)


def raw_start(scope: bytes, unit_bytes: int) -> bytes:
    """`RawSteps.blocks[0]`."""
    return xxh3_128_digest(scope + (b"\xfbtext" if unit_bytes == 1 else b"\xfbids"))


def raw_end(steps: RawSteps, answer: str | Sequence[int] = "") -> RawEnd:
    """The end of prompt plus answer. The answer must be of the prompt's kind (text or ids); empty: the prompt's end.

    Raises ValueError where the kinds differ.
    """
    if answer and isinstance(answer, str) != (steps.unit_bytes == 1):
        wanted = "text" if steps.unit_bytes == 1 else "token ids"
        raise ValueError(f"answer: {type(answer).__name__} given, but the prompt is {wanted}; the answer must be too")
    block_bytes = BLOCK_UNITS * steps.unit_bytes
    rest = steps.data[(len(steps.blocks) - 1) * block_bytes :] + raw_bytes(answer)
    block = steps.blocks[-1]
    if len(rest) >= block_bytes:
        block = roll(block, rest, block_bytes)[-1]
        rest = rest[len(rest) - len(rest) % block_bytes :]
    fine_count, tail_units = divmod(len(rest) // steps.unit_bytes, FINE_UNITS)
    fine_bytes = fine_count * FINE_UNITS * steps.unit_bytes
    fine = fine_digest(block, rest[:fine_bytes])
    return RawEnd(
        block=block,
        fine_count=fine_count,
        fine=fine,
        tail_units=tail_units,
        exact=exact_digest(fine, rest[fine_bytes:]),
    )


def fine_digest(block: bytes, data: bytes) -> bytes:
    """Digest of a block boundary's text plus the full fine steps after it."""
    return xxh3_128_digest(block + b"f" + data)


def exact_digest(fine: bytes, data: bytes) -> bytes:
    """Digest of a fine step's text plus the units after it: the whole text, exactly."""
    return xxh3_128_digest(fine + b"e" + data)


def _frame(tag: int, data: bytes) -> bytes:
    return bytes((tag,)) + len(data).to_bytes(8, "little")


def _canonical_json(raw: bytes) -> bytes:
    if len(raw) > MAX_CANONICAL_BYTES:
        return raw
    try:
        return _encode_json(_decode_json(raw))
    except BROKEN:
        return raw


def _canonical_message(message: Mapping[str, Any], content: bytes) -> list[bytes]:
    role = message.get("role")
    names: Set[str]
    parts = [_value(role) if role is not None else b"", content]
    if role == "assistant":
        reasoning = thought_of(message)
        if reasoning:
            parts += (_FIELD, b"reasoning", _TEXT, _value(reasoning))
        tool_calls = message.get("tool_calls")
        if tool_calls:
            parts += (_FIELD, b"tool_calls")
            parts += map(_canonical_call, tool_calls) if isinstance(tool_calls, list | tuple) else (_value(tool_calls),)
        names = _ASSISTANT_FIELDS.intersection(message)
    else:
        names = message.keys() - _NOT_FIELDS
    for name in sorted(names):
        value = message[name]
        if value is not None and value != "" and value != [] and value != {}:
            parts += (_FIELD, name.encode("utf-8", "surrogatepass"), _TEXT, _value(value))
    return parts


def _canonical_content(content: Any) -> bytes:  # noqa: ANN401 - whatever JSON the client sent
    if not content:
        return _TEXT
    if isinstance(content, str | bytes):
        return _TEXT + utf8(content)
    if not isinstance(content, list):
        return _PART + b"j" + _encode_json(content)
    if len(content) == 1 and (text := _part_text(content[0])) is not None:
        return _TEXT + utf8(text)
    return canonical_parts(content)


def canonical_parts(parts: Iterable[Any]) -> bytes:
    """A run of a content's parts, of which there are several."""
    return b"".join(map(_canonical_part, parts))


def _canonical_part(part: Any) -> bytes:  # noqa: ANN401
    text = _part_text(part)
    if text is not None:
        return _PART + b"t" + utf8(text)
    if isinstance(part, dict) and part.get("type") == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str | bytes):
            return _PART + b"i" + utf8(url)
    return _PART + b"j" + _encode_json(part)


def _part_text(part: Any) -> str | bytes | None:  # noqa: ANN401
    """The text of a text part. Its other keys (cache marks that clients move about) never reach the prompt."""
    if isinstance(part, str | bytes):
        return part
    if not isinstance(part, dict):
        return None
    kind, text = part.get("type"), part.get("text")
    return text if isinstance(kind, str) and kind in _TEXT_PARTS and isinstance(text, str | bytes) else None


def _canonical_call(call: Any) -> bytes:  # noqa: ANN401
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        if isinstance(call, Mapping):
            call = {key: value for key, value in call.items() if key != "index"}
        return _CALL + b"j" + _encode_json(call)
    arguments = function.get("arguments") or "{}"
    encoded = arguments.encode("utf-8", "surrogatepass") if isinstance(arguments, str) else _encode_json(arguments)
    name, call_id = function.get("name"), call.get("id")
    return b"".join((_CALL, _value(call_id or ""), _TEXT, _value(name or ""), _TEXT, _canonical_json(encoded)))


def _value(value: Any) -> bytes:  # noqa: ANN401
    if isinstance(value, str | bytes):
        return utf8(value)
    return b"".join((_PART, value if isinstance(value, msgspec.Raw) else _encode_json(value)))


def utf8(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def _without_think_block(content: str) -> str:
    head, end, tail = content.partition("</think>")
    # Some templates open the block in the prompt, so that the answer carries only its end.
    return tail if end and head.lstrip().rfind("<think>") <= 0 else content


def raw_bytes(prompt: str | bytes | Sequence[int]) -> bytes:
    """`RawSteps.data`. Raises ValueError."""
    if isinstance(prompt, str | bytes):
        return utf8(prompt)
    try:
        ids = array("I", prompt)
    except (OverflowError, TypeError) as error:
        raise ValueError(f"prompt: token ids must be integers from 0 to 4294967295 ({error})") from error
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tobytes()


def roll(digest: bytes, data: bytes, block_bytes: int) -> tuple[bytes, ...]:
    """The digest, and those of all full blocks of `data` after it."""
    blocks = [digest]
    for start in range(0, len(data) - block_bytes + 1, block_bytes):
        digest = xxh3_128_digest(digest + data[start : start + block_bytes])
        blocks.append(digest)
    return tuple(blocks)
