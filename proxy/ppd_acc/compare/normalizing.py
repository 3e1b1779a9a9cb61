"""When two texts count as equal although they are not: only what was asked for, and recorded with every sample."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from ppd_accuracy.answers.said import Said, differences

NORMALIZERS = ("strip_thinking_tags", "normalize_json", "normalize_numbers")
_SPACE = re.compile(r"\s+")
_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """`numeric_tolerance` is the largest difference of two numbers at the same place in otherwise equal texts."""

    has_whitespace: bool = False
    has_case: bool = False
    numeric_tolerance: float | None = None
    normalizers: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What is applied, in the words of the flags; empty where texts are compared as they are."""
        named = (("normalize-whitespace", self.has_whitespace), ("ignore-case", self.has_case))
        tolerance = () if self.numeric_tolerance is None else (f"numeric-tolerance {self.numeric_tolerance:g}",)
        return (*(name for name, is_on in named if is_on), *tolerance, *self.normalizers)

    def is_same(self, one: str, other: str) -> bool:
        """Whether two texts are equal under the rules; without rules, whether they are equal."""
        one, other = self._normal(one), self._normal(other)
        if one == other or self.numeric_tolerance is None:
            return one == other
        mine, theirs = _NUMBER.findall(one), _NUMBER.findall(other)
        if _NUMBER.split(one) != _NUMBER.split(other) or len(mine) != len(theirs):
            return False
        return all(abs(_value(a) - _value(b)) <= self.numeric_tolerance for a, b in zip(mine, theirs, strict=True))

    def is_forgiven(self, one: Said, other: Said) -> bool:
        """Whether two answers are equal under the rules, which are of texts: calls and ends are as they are. False
        without rules."""
        has_other = any(each.part in ("tool_calls", "finish_reason") for each in differences(one, other))
        texts = (one.content, other.content), (one.reasoning, other.reasoning)
        return bool(self.names) and not has_other and all(self.is_same(*both) for both in texts)

    def _normal(self, text: str) -> str:
        if "strip_thinking_tags" in self.normalizers:
            text = _THINKING.sub("", text)
        if "normalize_json" in self.normalizers:
            text = _canonical(text)
        if "normalize_numbers" in self.normalizers:
            text = _NUMBER.sub(lambda found: f"{_value(found[0]):.12g}", text)
        if self.has_whitespace:
            text = _SPACE.sub(" ", text).strip()
        return text.casefold() if self.has_case else text


def _canonical(text: str) -> str:
    """The same JSON in one spelling, without a code fence; a text that is no JSON stays as it is."""
    fenced = _FENCE.match(text)
    try:
        value = msgspec.json.decode(fenced[1] if fenced else text)
    except (msgspec.MsgspecError, RecursionError):
        return text
    return msgspec.json.encode(value, order="sorted").decode() if isinstance(value, dict | list) else text


def _value(number: str) -> float:
    return float(number.replace(",", ""))
