"""How a setting is described, and how the raw value of one becomes a checked value.

Knows no setting by name: programs declare dataclasses of them. Raw values are texts (flags, environment) or typed
(TOML).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Annotated, Literal, Union, cast, get_args, get_origin, get_type_hints

ENV_PREFIX = "PPD_"
Value = str | int | float | bool | tuple[str, ...] | None
MASK = "****"
"""What is printed in place of a secret; refused as a value, so that printed configurations are not loaded again."""


class ConfigError(Exception):
    """Every mistake found in a configuration, one sentence each: field, value, what would be right."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Form:
    """What a text must be: `expected` ends a sentence with it, `read` gives the value that a text stands for, None
    where it is nothing of the kind. `metavar` is what help shows in its place, the setting's name unless it is given.
    """

    expected: str
    read: Callable[[str], str | None]
    metavar: str = ""


def _key(text: str) -> str | None:
    is_key = text.isascii() and text.isprintable() and " " not in text and "," not in text and text != MASK
    return text if text and is_key else None


TEXT = Form("a text that is not empty", lambda text: text if text.strip() and text.isprintable() else None)
SECRET = Form("a key of printable ASCII characters without spaces and commas", _key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a field's type cannot say: help, unit and limits (`low` and `high` belong to the range)."""

    help: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    form: Form = TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as flags, environment, file and documentation name it. `section` is empty for what stands in none."""

    section: str
    name: str
    type: type
    note: Note
    default: Value
    choices: tuple[str, ...] = ()
    is_list: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.upper()

    @property
    def key(self) -> str:
        return f"[{self.section}] {self.name}"

    @property
    def is_secret(self) -> bool:
        return self.note.form is SECRET

    @property
    def expected(self) -> str:
        """What one value must be, as the end of a sentence."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.type is bool:
            return "true or false"
        if self.type is str:
            return self.note.form.expected
        number = "a whole number" if self.type is int else "a number"
        unit = f" of {self.note.unit}" if self.note.unit else ""
        if self.note.high is not None:
            return f"{number}{unit} from {self.note.low:g} to {self.note.high:g}"
        return f"{number}{unit}, at least {self.note.low:g}"


def settings_of(owner: type, section: str = "") -> Iterator[Setting]:
    """Every setting of a dataclass, in its order. A field that is a dataclass itself is a section of that name; any
    other is annotated with its type, optional, a Literal or a tuple of texts maybe, or `Annotated[type, Note]`."""
    hints = get_type_hints(owner, include_extras=True)
    for field in fields(owner):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from settings_of(cast("type", hint), field.name)
        else:
            yield _described(section, field.name, hint, field.default)


def from_text(setting: Setting, raw: object) -> object:
    """The number or switch a text stands for; what stands for none stays a text, which `parse` then refuses."""
    if not isinstance(raw, str) or setting.type is str:
        return raw
    if setting.type is bool:
        word = raw.strip().lower()
        if word in ("true", "1", "yes", "on"):
            return True
        return False if word in ("false", "0", "no", "off") else raw
    try:
        return setting.type(raw)
    except ValueError:
        return raw


def is_of(kind: type, raw: object) -> bool:
    """Whether a typed value is of a type: a whole number is a float too, a switch is no number."""
    kinds = (float, int) if kind is float else (kind,)
    return isinstance(raw, kinds) and (kind is bool or not isinstance(raw, bool))


def parse(setting: Setting, raw: object) -> Value:
    """The checked value; ConfigError with one clause for each thing wrong with it."""
    if not setting.is_list:
        return _one(setting, raw)
    if not isinstance(raw, list | tuple):
        raise ConfigError([f"{_shown(setting, raw)} is not a list; give a list, each item {setting.expected}"])
    items: list[str] = []
    mistakes: list[str] = []
    for item in raw:
        try:
            items.append(str(_one(setting, item)))
        except ConfigError as error:
            mistakes += error.mistakes
    doubled = dict.fromkeys(item for n, item in enumerate(items) if item in items[:n])
    mistakes += [f"{_shown(setting, item)} is given twice; give each value once" for item in doubled]
    if mistakes:
        raise ConfigError(mistakes)
    return tuple(items)


def _described(section: str, name: str, hint: object, default: object) -> Setting:
    kind, note = get_args(hint) if get_origin(hint) is Annotated else (hint, Note())
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    choices: tuple[str, ...] = get_args(kind) if get_origin(kind) is Literal else ()
    is_list = get_origin(kind) is tuple
    return Setting(
        section=section,
        name=name,
        type=str if choices or is_list else kind,
        note=note,
        default=cast("Value", default),
        choices=choices,
        is_list=is_list,
    )


def _one(setting: Setting, raw: object) -> str | int | float | bool:
    kind = float if setting.type is int else setting.type  # 3.0 is a whole number
    accepted = _accepted(setting, cast("str | float", raw)) if is_of(kind, raw) else None
    if accepted is None:
        raise ConfigError([f"{_shown(setting, raw)} is not {setting.expected}"])
    return accepted


def _accepted(setting: Setting, raw: str | float) -> str | float | None:
    if setting.choices:
        return raw if raw in setting.choices else None
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str):
        return setting.note.form.read(raw)
    try:
        number: float = setting.type(raw)
    except (OverflowError, ValueError):
        return None
    low, high = setting.note.low, setting.note.high
    is_low = low is not None and number < low
    is_high = number > (high if high is not None else sys.float_info.max)
    return None if is_low or is_high or number != raw else number


def _shown(setting: Setting, raw: object) -> str:
    return "the value (hidden)" if setting.is_secret else repr(raw)
