"""How a prefill over prompt and answer sees the answer's tokens: vLLM's `prompt_logprobs` (0.32).

They list, at each place, the token that stands there and the likeliest ones, by token id.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec


class Position(msgspec.Struct, frozen=True, gc=False):
    """One token of an answer as another engine's prefill sees it, in nats; None where there is no finite number.
    `margin`: how much likelier its best token is. `top` has what is listed, by token id as text."""

    logprob: float | None
    rank: int | None
    margin: float | None
    top: dict[str, float]


class _Listed(msgspec.Struct, gc=False):
    logprob: float | None = None
    rank: int | None = None


class _Choice(msgspec.Struct, gc=False):
    prompt_logprobs: list[msgspec.Raw] | None = None


class _Scored(msgspec.Struct, gc=False):
    choices: list[_Choice]


_scored = msgspec.json.Decoder(_Scored)
_listed = msgspec.json.Decoder(dict[str, _Listed] | None)


def read_scored(body: bytes, prompt_tokens: int, answer: Sequence[int], *, is_strict: bool = False) -> list[Position]:
    """Of each answer token. Of the prompt's own places, which are most of it, nothing is decoded.

    Raises ValueError where the body does not tell; `is_strict`: where it does not list one of the answer's tokens, too.
    """
    try:
        places = (_scored.decode(body).choices[0].prompt_logprobs or [])[prompt_tokens:]
        if len(places) != len(answer):
            raise ValueError(f"prompt logprobs of {len(places)} tokens; the answer has {len(answer)}")
        listed = [_listed.decode(place) or {} for place in places]
    except (msgspec.MsgspecError, IndexError, RecursionError) as error:
        raise ValueError(f"no prompt logprobs: {error}") from None
    if is_strict and not all(str(token) in each for token, each in zip(answer, listed, strict=True)):
        raise ValueError("prompt logprobs that leave out one of the answer's tokens")
    return [_position(token, each) for token, each in zip(answer, listed, strict=True)]


def _position(token: int, listed: Mapping[str, _Listed]) -> Position:
    logprobs = ((name, each.logprob) for name, each in listed.items())
    top = {name: logprob for name, logprob in logprobs if logprob is not None and math.isfinite(logprob)}
    own, logprob = listed.get(str(token)), top.get(str(token))
    margin = max(top.values()) - logprob if logprob is not None else None
    return Position(logprob, own.rank if own is not None else None, margin, top)
