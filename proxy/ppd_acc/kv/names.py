"""What the names of a dump's arrays say, and which arrays of two dumps belong together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["key", "value", "latent", ""]
_LAYOUT = re.compile(r"layer_(\d+)_(?:(.+)_)?(key|value|latent)")
_WORDS = MappingProxyType[str, Kind](
    {
        **dict.fromkeys(("k", "key", "keys"), "key"),
        **dict.fromkeys(("v", "value", "values"), "value"),
        **dict.fromkeys(("latent", "ckv"), "latent"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayName:
    """`layer` is None and `kind` empty where the name does not tell; `point` is where in a request it was captured."""

    name: str
    layer: int | None = None
    kind: Kind = ""
    point: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The same array in both dumps; None on the side that lacks it."""

    about: ArrayName
    baseline: str | None
    target: str | None


def read_name(name: str) -> ArrayName:
    """`layer_<i>_key`, `layer_<i>_<point>_value`; of other names the first number and a word such as `k` or `value`."""
    found = _LAYOUT.fullmatch(name)
    if found:
        layer, point, kind = found.groups()
        return ArrayName(name=name, layer=int(layer), kind=_WORDS.get(kind, ""), point=point or "")
    numbers = re.findall(r"\d+", name)
    words = [_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in _WORDS]
    return ArrayName(name=name, layer=int(numbers[0]) if numbers else None, kind=words[-1] if words else "")


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key that counts: layer_2 stands before layer_10."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part)


def pair_up(baseline: Iterable[str], target: Iterable[str]) -> tuple[list[Pair], list[str]]:
    """All arrays of both, in natural order, and notes.

    Arrays of one name belong together. Of the others, those of one layer and kind do, where each side has one: a
    capture after prefill can be held against one after transfer.
    """
    ones, others = {name: read_name(name) for name in baseline}, {name: read_name(name) for name in target}
    pairs = [Pair(about=about, baseline=name, target=name) for name, about in ones.items() if name in others]
    lone = [about for name, about in ones.items() if name not in others]
    other_lone = [about for name, about in others.items() if name not in ones]
    partners = _partners(lone, other_lone)
    notes = []
    if partners:
        points = sorted({(about.point or "none", other.point or "none") for about, other in partners})
        told = ", ".join(f"{one} against {other}" for one, other in points)
        notes.append(f"names differ, paired by layer and kind: capture point {told}")
    paired = {about.name for both in partners for about in both}
    pairs += [Pair(about=about, baseline=about.name, target=other.name) for about, other in partners]
    pairs += [Pair(about=about, baseline=about.name, target=None) for about in lone if about.name not in paired]
    pairs += [Pair(about=about, baseline=None, target=about.name) for about in other_lone if about.name not in paired]
    return sorted(pairs, key=lambda pair: natural(pair.about.name)), notes


def _partners(ones: Sequence[ArrayName], others: Sequence[ArrayName]) -> list[tuple[ArrayName, ArrayName]]:
    places: dict[tuple[int, str], tuple[list[ArrayName], list[ArrayName]]] = {}
    for side, names in enumerate((ones, others)):
        for about in names:
            if about.layer is not None and about.kind:
                places.setdefault((about.layer, about.kind), ([], []))[side].append(about)
    return [(first[0], second[0]) for first, second in places.values() if len(first) == len(second) == 1]
