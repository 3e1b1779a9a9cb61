"""How flags, environment and file become the values of a program's settings, every mistake in them at once.

Reads no environment variable and no command line itself. Knows no setting by name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from ppd_shell.settings import ENV_PREFIX, ConfigError, Setting, Value, from_text, parse

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The value of every setting, where each that is not a default came from, and what is wrong.

    A setting whose given value is wrong holds its default here. Warnings do not keep the program from starting.
    """

    values: Mapping[str, Value]
    origins: Mapping[str, str]
    mistakes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def built(self, owner: type[T]) -> T:
        """The dataclass of sections whose settings these are; ConfigError with every mistake."""
        if self.mistakes:
            raise ConfigError(list(self.mistakes))
        sections = get_type_hints(owner)
        return owner(**{
            name: section(**{field.name: self.values[field.name] for field in fields(section)})
            for name, section in sections.items()
        })  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """`flags` maps names of settings to what the command line gave: text, a list of texts, or a bool for a switch.
    An empty environment variable counts as not set. `foreign` are variables with our prefix that are no settings."""

    flags: Mapping[str, object]
    env: Mapping[str, str]
    file: Mapping[str, object]
    file_name: str
    foreign: re.Pattern[str]

    def resolve(self, known: Sequence[Setting]) -> Resolution:
        """Flags over environment over file over defaults. Settings of all sections have different names."""
        mistakes = [*self._unknown_variables(known), *self._unknown_keys(known)]
        values: dict[str, Value] = {}
        origins: dict[str, str] = {}
        for setting in known:
            values[setting.name] = setting.default
            for origin, raw in reversed(list(self._given(setting))):
                try:
                    values[setting.name] = parse(setting, raw)
                    origins[setting.name] = origin
                except ConfigError as error:
                    mistakes += [f"{origin}: {clause}" for clause in error.mistakes]
        return Resolution(values=values, origins=origins, mistakes=tuple(mistakes))

    def _given(self, setting: Setting) -> Iterator[tuple[str, object]]:
        """Where a value was given and the raw value, the strongest first. Texts are turned into the setting's type."""
        if self.flags.get(setting.name) is not None:
            yield setting.flag, from_text(setting, self.flags[setting.name])
        if text := self.env.get(setting.variable, ""):
            items = [item.strip() for item in text.split(",")] if setting.is_list else text
            yield setting.variable, from_text(setting, items)
        table = self.file.get(setting.section)
        if isinstance(table, Mapping) and setting.name in table:
            yield f"{self.file_name}: {setting.key}", table[setting.name]

    def _unknown_variables(self, known: Sequence[Setting]) -> Iterator[str]:
        names = [setting.variable for setting in known]
        for name in sorted(self.env):
            if name.startswith(ENV_PREFIX) and name not in names and not self.foreign.fullmatch(name):
                yield f"{name}: no such setting; {_suggestion(name, names)}"

    def _unknown_keys(self, known: Sequence[Setting]) -> Iterator[str]:
        keys = {setting.name: setting.key for setting in known}
        sections = list(dict.fromkeys(setting.section for setting in known))
        for section, table in self.file.items():
            if section not in sections:
                near_section = _suggestion(f"[{section}]", [f"[{known_section}]" for known_section in sections])
                hint = f"did you mean {keys[section]}?" if section in keys else near_section
                yield f"{self.file_name}: [{section}] is no section; {hint}"
            elif not isinstance(table, Mapping):
                yield f"{self.file_name}: {section} is not a table; write its keys under [{section}]"
            else:
                for name in table:
                    if keys.get(name) != f"[{section}] {name}":
                        close = get_close_matches(name, list(keys), n=1)
                        near = keys.get(name) or (keys[close[0]] if close else None)
                        own = ", ".join(setting.name for setting in known if setting.section == section)
                        hint = f"did you mean {near}?" if near else f"it has {own}"
                        yield f"{self.file_name}: [{section}] {name} is no setting; {hint}"


def read_toml(path: Path) -> dict[str, Any]:
    """A file's tables. Raises OSError, and ConfigError for what is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not valid TOML: {error}"]) from None


def _suggestion(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else "there is " + ", ".join(names)
