"""What an engine answered, read from its JSON: text, tokens, what it thought of them, and how it ended.

Where an engine gives no token ids, tokens are the names in its logprobs (by their bytes, where it tells these), else
words. What makes two answers the same is `ppd_accuracy.answers.said`'s to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, cast

import msgspec

from ppd_accuracy.answers.said import Said, is_nothing, said_of
from ppd_accuracy.answers.token_names import is_spelled, name_of, spelled
from ppd_wire.answers.detailed import DetailedChoice, DetailedReply, Logprobs, Message, TokenEntry
from ppd_wire.answers.tokens import BY_ID, id_of

Unit = Literal["tokens", "words"]
Token = int | str
_BY_ID_CHARS = len(BY_ID)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer.

    `tokens` are token ids; names of tokens where an engine gives logprobs without ids; words, with `unit` "words",
    where it gives neither. `logprobs` (nats, None where there is no finite number) and `tops` (token to logprob, the
    likeliest ones) have one element per token, or are empty; so has `token_texts`, None where a token's own text is not
    told. `text` is the content without reasoning. `first_ms` is the time to the first token, where the answer was
    streamed. `decision` is our proxy's `x-ppd-decision`.
    """

    text: str
    tokens: list[Token]
    unit: Unit
    logprobs: list[float | None] = []
    tops: list[dict[str, float]] = []
    token_texts: list[str | None] = []
    prompt_tokens: int | None = None
    prompt_token_ids: list[int] | None = None
    finish_reason: str | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] = []
    request_id: str | None = None
    total_ms: float | None = None
    first_ms: float | None = None
    decision: str | None = None

    @property
    def said(self) -> Said:
        """What it comes to for whoever asked."""
        return said_of(self)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it that could be compared."""
        return is_nothing(self.said, self.ids)

    @property
    def is_cut(self) -> bool:
        """Whether it ended at its token limit."""
        return self.finish_reason == "length"

    @property
    def ids(self) -> list[int] | None:
        """The token ids; None where tokens are names or words."""
        return [*cast("list[int]", self.tokens)] if self._has_ids else None

    @property
    def _has_ids(self) -> bool:
        return self.unit == "tokens" and set(map(type, self.tokens)) <= {int}


_reply = msgspec.json.Decoder(DetailedReply)


def read_answer(body: bytes, *, total_ms: float | None = None) -> Answer:
    """The first choice of a JSON answer. Raises ValueError where it is none."""
    try:
        reply = _reply.decode(body)
        choice = reply.choices[0]
    except (msgspec.MsgspecError, IndexError, RecursionError) as error:
        raise ValueError(f"not an answer with a choice: {error}") from None
    return answer_of(reply, choice, total_ms=total_ms)


def answer_of(
    reply: DetailedReply, choice: DetailedChoice, *, total_ms: float | None, first_ms: float | None = None
) -> Answer:
    """The answer that a choice is."""
    message = choice.message or Message(content=choice.text)
    if _is_hollow(message, choice.token_ids):
        raise ValueError("the answer's content is null, and it has neither reasoning nor tool calls")
    text = message.content or ""
    names, logprobs, tops = _scores(choice.logprobs)
    tokens: list[Token]
    if choice.token_ids is not None:
        tokens, unit = [*choice.token_ids], "tokens"
    elif names:
        tokens, unit = [_token(name) for name in names], "tokens"
    else:
        tokens, unit = [*text.split()], "words"
    if len(logprobs) != len(tokens):
        logprobs, tops = [], []
    texts = [_text(entry) for entry in (choice.logprobs.content if choice.logprobs is not None else None) or ()]
    prompt_ids = reply.prompt_token_ids or choice.prompt_token_ids
    counted = reply.usage.prompt_tokens if reply.usage is not None else None
    return Answer(
        text=text,
        tokens=tokens,
        unit="tokens" if unit == "tokens" else "words",
        logprobs=logprobs,
        tops=tops,
        token_texts=texts if len(texts) == len(tokens) else [],
        prompt_tokens=len(prompt_ids) if prompt_ids is not None else counted,
        prompt_token_ids=prompt_ids,
        finish_reason=choice.finish_reason,
        reasoning=message.thought,
        tool_calls=message.calls,
        request_id=reply.id,
        total_ms=total_ms,
        first_ms=first_ms,
    )


def _is_hollow(message: Message, token_ids: list[int] | None) -> bool:
    """Whether there is no text where there should be one. A single special token has none."""
    has_other = message.has_thought or message.calls
    return message.content is None and not has_other and (token_ids is None or len(token_ids) > 1)


def _text(entry: TokenEntry) -> str | None:
    """What the token reads as, also where it is named by its id; a stand-in for its text is none."""
    told = entry.spelling
    text = told.decode(errors="replace") if told is not None else None
    return None if text == entry.token and text.startswith(BY_ID) else text


def _name(entry: TokenEntry) -> str:
    return entry.token if entry.token.startswith(BY_ID) else name_of(entry.token, entry.spelling)


def _scores(given: Logprobs | None) -> tuple[list[str], list[float | None], list[dict[str, float]]]:
    """Names, logprobs and likeliest tokens."""
    if given is None:
        return [], [], []
    if given.content is not None:
        entries = given.content
        tops = [_tops_of(entry.top_logprobs or ()) for entry in entries]
        return [_name(entry) for entry in entries], [_finite(entry.logprob) for entry in entries], tops
    names = given.tokens or []
    listed = given.top_logprobs or [None] * len(names)
    tops = [_tops((top or {}).items()) for top in listed]
    return names, [_finite(value) for value in given.token_logprobs or ()], tops


def _tops_of(entries: Iterable[TokenEntry]) -> dict[str, float]:
    """As `_tops`, and by bytes where the name is no id. The hottest loop of a batch, so it is written out."""
    found: dict[str, float] = {}
    for entry in entries:
        name, logprob = entry.token, entry.logprob
        if logprob is None or not math.isfinite(logprob):
            continue
        key = name[_BY_ID_CHARS:] if name.startswith(BY_ID) else name_of(name, entry.spelling)
        if key not in found or found[key] < logprob:
            found[key] = logprob
    return found


def _tops(pairs: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """Token to logprob, by id where the engine names ids; of two tokens with one text the likelier."""
    found: dict[str, float] = {}
    for name, logprob in pairs:
        if logprob is None or not math.isfinite(logprob):
            continue
        key = name[_BY_ID_CHARS:] if name.startswith(BY_ID) else name
        if key not in found or found[key] < logprob:
            found[key] = logprob
    return found


def _token(name: str) -> Token:
    token_id = id_of(name)
    return token_id if token_id is not None else name


def identity(answer: Answer) -> str:
    """The same text for the same answer only: what was said, and the tokens where they are ids. Names count only where
    they say what the text does not."""
    names = [token for token in answer.tokens if isinstance(token, str)] if answer.unit == "tokens" else []
    tokens = f"{answer.ids}" if answer.ids is not None else spelled(names).hex() if is_spelled(names) else ""
    return f"{tokens} {answer.said.digest}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
