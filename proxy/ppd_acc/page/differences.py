"""Where in two texts the first different token is. Pure.

A report has token ids and whole texts; a token's own text only where the engine named tokens by text, or where the
report tells it with the first difference. Otherwise the place is found by characters, and said to be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ppd_acc.data.report import Sample, Side
from ppd_accuracy.answers.said import shared_characters

Found = Literal["token", "word", "characters"]
_WORD = re.compile(r"\S+")
_NEXT_WORD = re.compile(r"\s*\S*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A text in three: what is the same, what differs first (empty where the text had ended), and the rest."""

    before: str
    differing: str
    after: str

    @property
    def is_ended(self) -> bool:
        return not self.differing and not self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """`by` says how exact the place is."""

    baseline: Cut
    target: Cut
    by: Found


def first_difference_of(sample: Sample) -> Marked | None:
    """None where the contents are the same, or one was not kept."""
    flip, sides = sample.flip, (sample.baseline, sample.target)
    has_other = any(each.part == "content" for each in sample.differences)
    is_kept = has_other or not any(side.tokens and not side.text for side in sides)
    if not is_kept or (flip is None and not has_other) or (sample.differences and not has_other):
        return None
    if flip is None:
        one, other = cuts_of(sides[0].text, sides[1].text)
        return Marked(baseline=one, target=other, by="characters")
    if sample.unit == "words":
        return Marked(
            baseline=_by_word(sample.baseline.text, flip.position),
            target=_by_word(sample.target.text, flip.position),
            by="word",
        )
    named = [_by_names(side, flip.position) for side in sides]
    if named[0] is not None and named[1] is not None:
        return Marked(baseline=named[0], target=named[1], by="token")
    common = shared_characters(sides[0].text, sides[1].text)
    known = _by_told(sides[0].text, sides[1].text, flip.baseline_text or "", flip.target_text or "", common)
    if known is not None:
        return Marked(
            baseline=_cut(sides[0].text, known, flip.baseline_text or ""),
            target=_cut(sides[1].text, known, flip.target_text or ""),
            by="token",
        )
    one, other = cuts_of(sides[0].text, sides[1].text)
    return Marked(baseline=one, target=other, by="characters")


def cuts_of(one: str, other: str) -> tuple[Cut, Cut]:
    """Two texts at their first different character, with the rest of its word."""
    common = shared_characters(one, other)
    return _cut(one, common, _word_at(one, common)), _cut(other, common, _word_at(other, common))


def _by_word(text: str, position: int) -> Cut:
    for number, found in enumerate(_WORD.finditer(text)):
        if number == position:
            return Cut(before=text[: found.start()], differing=found.group(), after=text[found.end() :])
    return Cut(before=text, differing="", after="")


def _by_names(side: Side, position: int) -> Cut | None:
    """None unless the tokens are texts that make up the answer."""
    names = [token for token in side.tokens if isinstance(token, str)]
    if len(names) != len(side.tokens) or "".join(names) != side.text:
        return None
    return Cut(
        before="".join(names[:position]),
        differing="".join(names[position : position + 1]),
        after="".join(names[position + 1 :]),
    )


def _by_told(one: str, other: str, mine: str, theirs: str, common: int) -> int | None:
    """The place at which both texts go on with their token; the last one that is not behind the first different
    character."""
    if not mine and not theirs:
        return None
    for start in range(common, max(-1, common - max(len(mine), len(theirs)) - 1), -1):
        if one.startswith(mine, start) and other.startswith(theirs, start):
            return start
    return None


def _word_at(text: str, start: int) -> str:
    found = _NEXT_WORD.match(text, start)
    return found.group() if found is not None else ""


def _cut(text: str, start: int, differing: str) -> Cut:
    return Cut(before=text[:start], differing=differing, after=text[start + len(differing) :])


def around(cut: Cut, most: int) -> tuple[Cut, int, int]:
    """The cut with at most `most` characters on either side of the difference, and how many are left out before and
    after."""
    before, differing, after = cut.before[-most:], cut.differing[:most], cut.after[:most]
    left_out = len(cut.before) - len(before), len(cut.differing) + len(cut.after) - len(differing) - len(after)
    return Cut(before=before, differing=differing, after=after), *left_out
