"""Small changes of a prompt that leave its meaning: white space, case, punctuation, politeness, order, a slip."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

_POLITE = ("Please: ", "Kindly: ", "Could you help me with this? ", "I would like to ask: ")
_THANKS = (" Thank you.", " Thanks!", " Please.", " Much appreciated.")
_ENDS = (".", "!", "?", "...", ":")
_PATIENCE = 20
"""Rounds through all kinds that bring nothing new before it is given up: a short prompt has few variants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    kind: str
    text: str


def perturb(prompt: str, count: int, seed: int) -> list[Perturbation]:
    """Up to `count` different texts, none of them the prompt, the kinds in turn; the same for the same seed."""
    draw = random.Random(seed)
    seen, found, idle = {prompt}, list[Perturbation](), 0
    while len(found) < count and idle < _PATIENCE:
        idle += 1
        for kind, change in _KINDS:
            text = change(prompt, draw)
            if text.strip() and text not in seen and len(found) < count:
                seen.add(text)
                found.append(Perturbation(kind=kind, text=text))
                idle = 0
    return found


def _whitespace(prompt: str, draw: random.Random) -> str:
    gaps = [match.start() for match in re.finditer(" ", prompt)]
    places = [0, len(prompt), *gaps]
    place = draw.choice(places)
    return prompt[:place] + draw.choice((" ", "  ", "\n", "\t")) + prompt[place:]


def _case(prompt: str, draw: random.Random) -> str:
    """Of the first letter, else of another word's."""
    starts = [match.start() for match in re.finditer(r"\b[^\W\d_]", prompt)]
    if not starts:
        return prompt
    place = draw.choice((starts[0], draw.choice(starts)))
    return prompt[:place] + prompt[place].swapcase() + prompt[place + 1 :]


def _punctuation(prompt: str, draw: random.Random) -> str:
    """Another end, or one mark less."""
    marks = [match.start() for match in re.finditer(r"[,;:.!?]", prompt)]
    if marks and draw.random() < 0.5:
        place = draw.choice(marks)
        return prompt[:place] + prompt[place + 1 :]
    return prompt.rstrip(" .!?:") + draw.choice(_ENDS)


def _politeness(prompt: str, draw: random.Random) -> str:
    for word, other in (("please", "kindly"), ("Please", "Kindly")):
        if re.search(rf"\b{word}\b", prompt) and draw.random() < 0.5:
            return re.sub(rf"\b{word}\b", other, prompt, count=1)
    return draw.choice(_POLITE) + prompt if draw.random() < 0.5 else prompt + draw.choice(_THANKS)


def _order(prompt: str, draw: random.Random) -> str:
    """Two sentences change places, or two neighbouring words where there is one sentence."""
    sentences = re.split(r"(?<=[.!?])\s+", prompt.strip())
    parts = sentences if len(sentences) > 1 else prompt.split(" ")
    if len(parts) < 2:
        return prompt
    place = draw.randrange(len(parts) - 1)
    parts[place], parts[place + 1] = parts[place + 1], parts[place]
    return " ".join(parts)


def _slip(prompt: str, draw: random.Random) -> str:
    """Two letters inside a word change places."""
    places = [match.start() for match in re.finditer(r"(?<=\w)\w(?=\w\w)", prompt)]
    if not places:
        return prompt
    place = draw.choice(places)
    return prompt[:place] + prompt[place + 1] + prompt[place] + prompt[place + 2 :]


_KINDS: tuple[tuple[str, Callable[[str, random.Random], str]], ...] = (
    ("whitespace", _whitespace),
    ("case", _case),
    ("punctuation", _punctuation),
    ("politeness", _politeness),
    ("order", _order),
    ("slip", _slip),
)
