"""What an answer said, and whether two answers said the same: content, reasoning, tool calls, and how it ended.

The one owner of that question. Tokens say where two answers part and by how much; whether they differ is decided here,
by texts: names of tokens are no identity. A call is its name and its arguments as JSON, in whatever order and spacing;
arguments that are no JSON are text. Ids of calls are made up anew for every answer and say nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

Part = Literal["reasoning", "content", "tool_calls", "finish_reason"]
EMPTY = "every answer was empty: nothing was compared"
_SHOWN_CHARACTERS = 40


class Speaker(Protocol):
    """Whatever keeps an answer: one that was read, or a side of a report."""

    @property
    def text(self) -> str: ...

    @property
    def reasoning(self) -> str | None: ...

    @property
    def tool_calls(self) -> list[dict[str, Any]]: ...

    @property
    def finish_reason(self) -> str | None: ...


class SaidCall(msgspec.Struct, frozen=True):
    """`arguments` are JSON with sorted keys and without white space, or the text that was none."""

    name: str
    arguments: str

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"


class Said(msgspec.Struct, frozen=True):
    """What an answer said. `finish_reason` is None where the engine did not tell."""

    reasoning: str
    content: str
    tool_calls: tuple[SaidCall, ...]
    finish_reason: str | None

    @property
    def is_empty(self) -> bool:
        return not (self.reasoning or self.content or self.tool_calls)

    @property
    def digest(self) -> str:
        """SHA-256, the same for the same answer only."""
        return hashlib.sha256(json.dumps(msgspec.to_builtins(self)).encode()).hexdigest()

    def __str__(self) -> str:
        """For people: the content, with the other parts around it where there are any."""
        parts = [f"[reasoning] {self.reasoning}"] if self.reasoning else []
        parts += [self.content] if self.content else []
        return "\n".join((*parts, *(f"[tool call] {call}" for call in self.tool_calls)))


class Difference(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One part in which two answers differ. `at` is the first different character, or the first different call, from 0;
    None of finish reasons, or where it was not kept. `baseline` and `target` are what stands there, cut after a few
    characters."""

    part: Part
    at: int | None = None
    baseline: str = ""
    target: str = ""

    def __str__(self) -> str:
        """A sentence's end: "content from character 3 on: 'a' / 'b'"."""
        name = self.part.replace("_", " ")
        if self.at is not None:
            name += f" from {'call' if self.part == 'tool_calls' else 'character'} {self.at} on"
        return f"{name}: {self.baseline!r} / {self.target!r}" if self.baseline or self.target else name


def said_of(answer: Speaker) -> Said:
    return Said(
        reasoning=answer.reasoning or "",
        content=answer.text,
        tool_calls=calls_of(answer.tool_calls),
        finish_reason=answer.finish_reason,
    )


def calls_of(calls: Sequence[Mapping[str, Any]]) -> tuple[SaidCall, ...]:
    """Tool calls as an engine gives them: names and arguments."""
    return tuple(map(_call, calls))


def _call(call: Mapping[str, Any]) -> SaidCall:
    """Of a function, or of a tool that takes a text (`custom`)."""
    own = call.get("function") or call.get("custom") or {}
    if not isinstance(own, Mapping):
        return SaidCall(name="", arguments=_canonical(own))
    return SaidCall(name=str(own.get("name") or ""), arguments=_canonical(own.get("arguments", own.get("input"))))


def _canonical(arguments: object) -> str:
    """Some engines give an object instead of its JSON."""
    if arguments is None:
        return ""
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return str(arguments)


def is_nothing(said: Said, token_ids: Sequence[int] | None) -> bool:
    """Whether an answer has nothing that could be compared: it says nothing, and no ids tell of more than its end."""
    return said.is_empty and (token_ids is None or len(token_ids) <= (said.finish_reason == "stop"))


def differences(one: Said, other: Said) -> list[Difference]:
    """The parts that differ, in the order in which an engine makes them. A finish reason that one engine does not tell
    is none that differs."""
    texts: tuple[tuple[Part, str, str], ...] = (
        ("reasoning", one.reasoning, other.reasoning), ("content", one.content, other.content),
    )  # fmt: skip
    differing = [_of_texts(part, mine, theirs) for part, mine, theirs in texts if mine != theirs]
    if one.tool_calls != other.tool_calls:
        differing.append(_of_calls(one.tool_calls, other.tool_calls))
    ends = one.finish_reason, other.finish_reason
    if None not in ends and ends[0] != ends[1]:
        differing.append(Difference(part="finish_reason", baseline=ends[0] or "", target=ends[1] or ""))
    return differing


def part_of(said: Said, part: Part) -> str:
    """One part whole, as people read it."""
    if part == "tool_calls":
        return ", ".join(map(str, said.tool_calls))
    return getattr(said, part) or ""


def shared_characters(one: str, other: str) -> int:
    """How many characters both begin with."""
    known, most = 0, min(len(one), len(other))
    while known < most:  # halving: whole stretches are compared at once
        middle = (known + most + 1) // 2
        if one[known:middle] == other[known:middle]:
            known = middle
        else:
            most = middle - 1
    return known


def _of_texts(part: Part, mine: str, theirs: str) -> Difference:
    at = shared_characters(mine, theirs)
    return Difference(part=part, at=at, baseline=_short(mine[at:]), target=_short(theirs[at:]))


def _of_calls(mine: Sequence[SaidCall], theirs: Sequence[SaidCall]) -> Difference:
    shortest = min(len(mine), len(theirs))
    at = next((number for number in range(shortest) if mine[number] != theirs[number]), shortest)
    one, other = (str(calls[at]) if at < len(calls) else "" for calls in (mine, theirs))
    if at < shortest and mine[at].name == theirs[at].name:
        # Two calls of one function part in their arguments: what both begin with would fill the line.
        shared = shared_characters(one, other)
        if shared > _SHOWN_CHARACTERS:
            one, other = (f"{mine[at].name}(...{each[shared - 10 :]}" for each in (one, other))
    return Difference(part="tool_calls", at=at, baseline=_short(one), target=_short(other))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def is_text(differing: Sequence[Difference]) -> bool:
    """Whether something that was said differs, not only how it ended."""
    return any(each.part != "finish_reason" for each in differing)


def sentence(differing: Sequence[Difference]) -> str:
    """All differences on one line; empty without any."""
    return "; ".join(map(str, differing))
