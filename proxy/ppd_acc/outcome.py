"""How the work of a command ends: with a result, a mistake of the user's, or trouble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from rich.console import RenderableType


class Exit(IntEnum):
    """How a command ends, the same for every command. `PASS` is also what describing commands end with."""

    PASS = 0
    DIFFERENT = 1
    USAGE = 2
    INFRASTRUCTURE = 3
    INCONCLUSIVE = 4


class Mistake(Exception):
    """A mistake in usage, configuration or input: ends with 2. The message names field, value and what is right."""


class Trouble(Exception):
    """An engine or a file system that did not do its part: ends with 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`data` is what `--json` writes: plain JSON types, msgspec Structs or dataclasses; `main` adds kind and version.
    `view` is what people read, in order: tables, and text that is no markup. `notes` are warnings, shown in both."""

    exit: Exit
    data: Mapping[str, Any]
    view: tuple[RenderableType, ...] = ()
    notes: tuple[str, ...] = ()
