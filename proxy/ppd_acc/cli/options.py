"""A command's options: a frozen dataclass whose fields say which flags they are, so that each flag stands once.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        urls: Mapping[str, str] = pair_flags()
        runs: int = flag(type=positive, default=5, metavar="N", help="of every prompt")
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import field, fields
from functools import partial
from typing import Any, TypeVar

from ppd_acc.cli.given import Given

_T = TypeVar("_T")


def flag(*names: str, read: Callable[[Given], Any] | None = None, **details: Any) -> Any:
    """A field that is one flag: `names`, by default that of the field, and `details` for argparse. Its value is what
    the line says, or what `read` makes of all that is given; `read` may raise Mistake."""

    def add(parser: argparse.ArgumentParser, name: str) -> None:
        parser.add_argument(*(names or ["--" + name.replace("_", "-")]), **details)

    return field(metadata={"add": add, "read": read})


def switch(help_text: str) -> Any:
    """True where it is given."""
    return flag(action="store_true", help=help_text)


def value(
    metavar: str, help_text: str, kind: Callable[[str], Any] | None = None, default: Any = None,
    read: Callable[[Given], Any] | None = None,
) -> Any:  # fmt: skip
    """A flag with a value of this kind, by default text; the help tells the default."""
    shown = "" if default is None else f" (default {default})"
    return flag(read=read, type=kind, default=default, metavar=metavar, help=help_text + shown)


def several(metavar: str, help_text: str) -> Any:
    """A flag that may be given again and again: a tuple of texts."""
    made = flag(action="append", metavar=metavar, help=help_text)
    return field(metadata={**made.metadata, "absent": ()})


def flags(add: Callable[[argparse.ArgumentParser], None], read: Callable[[Given], Any]) -> Any:
    """A field that several flags come to: `add` adds them, `read` makes the value, and may raise Mistake."""
    return field(metadata={"add": lambda parser, _: add(parser), "read": read})


def derived(read: Callable[[Given], Any]) -> Any:
    """A field without a flag of its own."""
    return flags(lambda _: None, read)


def nested(kind: type) -> Any:
    """A field with options of its own."""
    return flags(partial(add_options, kind), partial(read_options, kind))


def add_options(kind: type, parser: argparse.ArgumentParser) -> None:
    """All flags of a kind of options, in the order of its fields."""
    for each in fields(kind):
        each.metadata["add"](parser, each.name)


def read_options(kind: type[_T], given: Given) -> _T:
    """Field by field, so the first field that is wrong is the one that is told. Raises Mistake and ConfigError."""
    values: dict[str, Any] = {}
    for each in fields(kind):  # type: ignore[arg-type]
        read = each.metadata["read"]
        what = given.flag(each.name) if read is None else read(given)
        values[each.name] = each.metadata.get("absent") if what is None else what
    return kind(**values)
