"""What several commands show people: the noise floor's line, numbers, how far a long job is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ppd_accuracy.answers.flips import ReplayNoise

_LINE_EVERY_S, _REDRAW_EVERY_S = 5.0, 0.5


def counted(count: int, one: str, several: str = "") -> str:
    """A number and its noun: `one` for 1, else `several` (without it `one` with an s)."""
    return f"{count} {one if count == 1 else several or one + 's'}"


def empty_pairs(count: int) -> str:
    return counted(count, "pair of answers was empty", "pairs of answers were empty")


def empty_too(count: int) -> str:
    """The end of a sentence about the others: how many pairs of answers were no comparison. Nothing without any."""
    return f"; {empty_pairs(count)} and not compared" if count else ""


def nats(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g} nats"


def percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.2f} %"


def span(low: float, high: float) -> str:
    """An interval of shares; `span(*interval)`."""
    return f"{percent(low)} to {percent(high)}"


def numbers_table(left: Sequence[str], right: Sequence[str], title: str | None = None) -> Table:
    """Columns of words, then columns of numbers."""
    table = Table(*left, title=title, title_justify="left")
    for name in right:
        table.add_column(name, justify="right")
    return table


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def verbatim(text: str) -> Text:
    """Text that is neither wrapped nor cut, however long its lines: what programs read."""
    return Text(text, no_wrap=True)


def shown(part: RenderableType) -> RenderableType:
    """A part of a view; in plain text nothing is markup."""
    return Text(part) if isinstance(part, str) else part


def is_verbatim(part: object) -> bool:
    return isinstance(part, Text) and part.no_wrap is True


def noise_line(floor: ReplayNoise) -> str:
    """One line, to stand beside numbers."""
    if not floor.answers:
        return "noise floor: not measured (--noise-floor N measures it)"
    if floor.broken:
        broken = counted(floor.broken, "number")
        return f"noise floor: NaN or infinite: {broken} of the baseline; nothing can be judged by it"
    longest = floor.longest_prompt
    prompts = f" to prompts of up to {counted(longest, 'token')}" if longest is not None else ""
    again = "answer differs" if floor.flips == 1 else "answers differ"
    return (
        f"noise floor of {counted(floor.answers, 'answer')}{prompts}, {counted(floor.tokens, 'token')}: largest shift"
        f" {nats(floor.largest_shift)}, largest logprob difference {nats(floor.largest_delta)},"
        f" {floor.flips} {again} when asked again{_failures(floor)}"
    )


def _failures(floor: ReplayNoise) -> str:
    if not floor.failed:
        return ""
    asked = floor.answers + floor.failed
    return f"; {floor.answers} of {asked} answers: the others failed: {floor.failure}"


class Progress:
    """Tells on standard error how far a long job is: at once on a terminal, every few seconds elsewhere."""

    def __init__(self, console: Console, what: str, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._what = what
        self._total = total
        self._clock = clock
        self._started_at = self._told_at = clock()
        self._done = 0

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        self(self._done)

    def __call__(self, done: int, extra: str = "") -> None:
        """`done` of all; `extra` stands at the end of the line."""
        now = self._clock()
        every_s = _REDRAW_EVERY_S if self._console.is_terminal else _LINE_EVERY_S
        is_last = done >= self._total and self._told_at > self._started_at
        if self._console.quiet or (now - self._told_at < every_s and not is_last):
            return
        self._told_at = now
        passed = now - self._started_at
        left = passed / done * (self._total - done) if done else 0.0
        line = Text(f"{self._what}: {done} of {self._total}, {passed:.0f} s, about {left:.0f} s left{extra}")
        self._console.print(line, end="\r" if self._console.is_terminal and not is_last else "\n")
