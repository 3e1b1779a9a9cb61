"""How a setting is described, and how the raw value of one becomes a checked value.

Knows no setting by name: `config.py` lists them. Raw values are texts (flags, environment) or typed (TOML).
"""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import dataclass
from types import UnionType
from typing import Literal, Union, get_args, get_origin

from ppd_core.fleet.address import parse_url
from ppd_shell.config_error import ConfigError
from ppd_wire.errors import BadRequest

Value = str | int | float | bool | tuple[str, ...] | None
Form = Literal["text", "secret", "url", "network"]
ENV_PREFIX = "PPD_"
MASK = "****"
"""What is printed in place of a secret; refused as a value, so that printed configurations are not loaded again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a field's type cannot say: help, unit and limits (`low` and `high` belong to the range)."""

    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    form: Form = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as flags, environment, file and documentation name it."""

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
        return self.note.form == "secret"

    @property
    def expected(self) -> str:
        """What one value must be, as the end of a sentence."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.type is bool:
            return "true or false"
        if self.type is str:
            return {
                "text": "a text that is not empty",
                "secret": "a key of printable ASCII characters without spaces and commas",
                "network": "a network such as 10.0.0.0/8 or fd00::/8, its host bits zero",
                "url": "an engine's URL, http://HOST:PORT or https://HOST:PORT without a path",
            }[self.note.form]
        number = "a whole number" if self.type is int else "a number"
        unit = f" of {self.note.unit}" if self.note.unit else ""
        if self.note.high is not None:
            return f"{number}{unit} from {self.note.low:g} to {self.note.high:g}"
        return f"{number}{unit}, at least {self.note.low:g}"


def describe(section: str, name: str, hint: object, default: Value) -> Setting:
    """The setting behind a field annotated as `Annotated[type, Note]`; `type` may be optional, a Literal or a tuple."""
    kind, note = get_args(hint)
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    choices: tuple[str, ...] = get_args(kind) if get_origin(kind) is Literal else ()
    is_list = get_origin(kind) is tuple
    one = str if choices or is_list else kind
    return Setting(section=section, name=name, type=one, note=note, default=default, choices=choices, is_list=is_list)


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


def _one(setting: Setting, raw: object) -> str | int | float | bool:
    accepted: str | int | float | bool | None
    if isinstance(raw, bool) or setting.type is bool:
        accepted = raw if isinstance(raw, bool) and setting.type is bool else None
    elif setting.type is str:
        accepted = _accepted_text(setting, raw) if isinstance(raw, str) else None
    else:
        accepted = _accepted_number(setting, raw) if isinstance(raw, int | float) else None
    if accepted is None:
        raise ConfigError([f"{_shown(setting, raw)} is not {setting.expected}"])
    return accepted


def _accepted_number(setting: Setting, raw: int | float) -> int | float | None:
    try:
        number: int | float = setting.type(raw)
    except (OverflowError, ValueError):
        return None
    is_low = setting.note.low is not None and number < setting.note.low
    is_high = number > (setting.note.high if setting.note.high is not None else sys.float_info.max)
    return None if is_low or is_high or number != raw else number


def _accepted_text(setting: Setting, text: str) -> str | None:
    if setting.choices:
        return text if text in setting.choices else None
    if setting.note.form == "url":
        return _accepted_url(text)
    if setting.note.form == "network":
        return _accepted_network(text)
    if setting.note.form == "secret":
        is_key = text.isascii() and text.isprintable() and " " not in text and "," not in text and text != MASK
        return text if text and is_key else None
    return text if text.strip() and text.isprintable() else None


def _accepted_url(text: str) -> str | None:
    try:
        return parse_url(text.strip())[1]
    except BadRequest:
        return None


def _accepted_network(text: str) -> str | None:
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError:
        return None


def _shown(setting: Setting, raw: object) -> str:
    return "the value (hidden)" if setting.is_secret else repr(raw)
