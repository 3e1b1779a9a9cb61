"""Where two answers part: in tokens where they are ids, or names that leave no doubt; else in words, or nowhere known.

Whether they differ at all is not decided here but by what they said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ppd_acc.ask.answers import Answer, Unit
from ppd_accuracy.answers.flips import Token, first_difference
from ppd_accuracy.answers.said import differences, is_text, shared_characters
from ppd_accuracy.answers.token_names import are_of_one_kind, have_other_bytes, is_within, may_be_one, sure_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`ones` and `others` are both answers in `unit`s. `position` is the first of them that differs; None where none
    does, or where names do not tell which. The first `common` ones are surely the same."""

    unit: Unit
    ones: Sequence[Token]
    others: Sequence[Token]
    position: int | None
    common: int


def place_of(baseline: Answer, target: Answer) -> Place:
    """The first difference in the largest detail that both answers allow."""
    if not _has_same_kind(baseline, target):
        return _by_words(baseline, target)
    ones, others = baseline.tokens, target.tokens
    if baseline.ids is None or target.ids is None:
        return _by_names(baseline, target)
    return _at(ones, others, first_difference(ones, others))


def have_same_ids(baseline: Answer, target: Answer) -> bool:
    """Whether both have token ids, and the same: then whatever differs was read differently, not generated so."""
    return bool(baseline.ids) and baseline.ids == target.ids


def _has_same_kind(baseline: Answer, target: Answer) -> bool:
    """Whether both have tokens, and both ids or both names: an id never equals a name."""
    if not baseline.unit == target.unit == "tokens":
        return False
    return not baseline.tokens or not target.tokens or (baseline.ids is None) == (target.ids is None)


def _at(ones: Sequence[Token], others: Sequence[Token], position: int | None) -> Place:
    common = position if position is not None else len(ones)
    return Place(unit="tokens", ones=ones, others=others, position=position, common=common)


def _by_words(baseline: Answer, target: Answer) -> Place:
    ones, others = baseline.text.split(), target.text.split()
    position = first_difference(ones, others)
    common = position if position is not None else len(ones)
    return Place(unit="words", ones=ones, others=others, position=position, common=common)


def _by_names(baseline: Answer, target: Answer) -> Place:
    ones, others = baseline.tokens, target.tokens
    mine, theirs = [str(token) for token in ones], [str(token) for token in others]
    position = first_difference(ones, others)
    if not is_text(differences(baseline.said, target.said)):
        if position is None or have_other_bytes(mine, theirs):
            return _at(ones, others, position)
        return _by_words(baseline, target)  # the same text in other pieces, or under other names
    shared = shared_characters(baseline.text, target.text)
    sides = (mine, baseline.text), (theirs, target.text)
    is_plain = not (baseline.reasoning or target.reasoning or baseline.tool_calls or target.tool_calls)
    is_of_one_kind = not is_plain or are_of_one_kind(*sides[0], *sides[1])
    if position is not None and is_of_one_kind and not may_be_one(mine[position:], theirs[position:]):
        if all(is_within(names, position, text, shared) for names, text in sides):
            return _at(ones, others, position)
    common = min(sure_tokens(names, text, shared) for names, text in sides)
    return Place(unit="tokens", ones=ones, others=others, position=None, common=common)
