"""The homes of conversations as numbers: thousands of conversations share one, but for the tokens that it holds."""

from __future__ import annotations

from collections.abc import Callable

from ppd_core.conversation.history import Home


class Homes:
    """`segments` and `leaves` count by number what has that home; whoever keeps them tells."""

    __slots__ = ("_homes", "_numbers", "_unused", "leaves", "segments")

    def __init__(self) -> None:
        self._homes: list[Home | None] = []
        """None: forgotten, though there may be segments that still name it."""
        self._numbers: dict[tuple[str, int, tuple[str, ...], str], int] = {}
        self._unused: list[int] = []
        self.segments: list[int] = []
        self.leaves: list[int] = []

    def number(self, home: Home) -> int:
        facts = (home.engine_id, home.incarnation, home.filled_by, home.salt)
        number = self._numbers.get(facts)
        if number is not None:
            return number
        if self._unused:
            number = self._unused.pop()
            self._homes[number] = home
        else:
            number = len(self._homes)
            self._homes.append(home)
            self.segments.append(0)
            self.leaves.append(0)
        self._numbers[facts] = number
        return number

    def at(self, number: int, held_tokens: int) -> Home | None:
        home = self._homes[number]
        if home is None:
            return None
        return Home(
            engine_id=home.engine_id,
            incarnation=home.incarnation,
            held_tokens=held_tokens,
            filled_by=home.filled_by,
            salt=home.salt,
        )

    def left(self, number: int) -> None:
        """One segment less has it."""
        self.segments[number] -= 1
        if not self.segments[number]:
            self._take_out(number)
            self._unused.append(number)

    def forget(self, is_bad: Callable[[Home], bool]) -> int:
        """Forget those that are bad; how many leaves had them."""
        bad = [number for number, home in enumerate(self._homes) if home is not None and is_bad(home)]
        for number in bad:
            self._take_out(number)
        return sum(self.leaves[number] for number in bad)

    def _take_out(self, number: int) -> None:
        home, self._homes[number] = self._homes[number], None
        if home is not None:
            del self._numbers[home.engine_id, home.incarnation, home.filled_by, home.salt]
