#!/usr/bin/env python3
"""Writes the tables of settings, metrics and simulate flags in docs/reference/ from the code they describe.

    python scripts/reference_tables.py

Each table stands between two markers, `<!-- table: NAME -->` and `<!-- end of table -->`; the pages are rewritten in
place.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ppd_proxy.cli.serve import FILE_VARIABLE
from ppd_proxy.config import config
from ppd_proxy.telemetry.instrument import Instrument
from ppd_proxy.telemetry.instruments import INSTRUMENTS
from ppd_shell.settings import Setting, Value
from ppd_sim import command

PAGES = Path(__file__).parents[1] / "docs" / "reference"
END = "<!-- end of table -->"
_MARKED = re.compile(r"<!-- table: (?P<name>[a-z]+) -->\n.*?" + re.escape(END), re.DOTALL)


def tables() -> dict[str, str]:
    """Every generated table by the name in its marker."""
    return {"settings": _settings_table(), "metrics": _metrics_table(), "simulate": _simulate_table()}


def rewritten(page: str) -> str:
    """A page's text with every marked table as it should be; KeyError names a table that does not exist."""
    current = tables()
    return _MARKED.sub(lambda match: _marked(match["name"], current[match["name"]]), page)


def marked_names(page: str) -> list[str]:
    """The names of the tables that the text has markers for."""
    return [match["name"] for match in _MARKED.finditer(page)]


def main() -> None:
    for path in PAGES.glob("*.md"):
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")


def _marked(name: str, table: str) -> str:
    return f"<!-- table: {name} -->\n{table}\n{END}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _settings_table() -> str:
    file_row = ("`--config`", f"`{FILE_VARIABLE}`", "", "", "TOML file with settings")
    rows = (
        (f"`{s.flag}`", f"`{s.variable}`", f"`{s.key}`", _default(s.default), _meaning(s)) for s in config.settings()
    )
    return _table(("Flag", "Variable", "File", "Default", "Meaning"), [file_row, *rows])


def _default(value: Value) -> str:
    if value is None or value == ():
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(setting: Setting) -> str:
    choices = " (" + ", ".join(f"`{choice}`" for choice in setting.choices) + ")" if setting.choices else ""
    unit = f" ({setting.note.unit})" if setting.note.unit else ""
    return setting.note.help + choices + unit + (", repeatable" if setting.is_list else "")


def _metrics_table() -> str:
    return _table(
        ("Metric", "Kind", "Labels", "Meaning"),
        ((f"`{i.name}`", i.kind, ", ".join(f"`{label}`" for label in i.labels), _metric(i)) for i in INSTRUMENTS),
    )


def _metric(instrument: Instrument) -> str:
    values = "".join(f" `{label}`: {text}." for label, text in instrument.label_values.items())
    return instrument.help + values


def _simulate_table() -> str:
    parser = argparse.ArgumentParser(add_help=False)
    command.add_arguments(parser)
    rows = ((f"`{action.option_strings[-1]}`", action.help or "") for action in parser._actions)
    return _table(("Flag", "Meaning"), rows)


if __name__ == "__main__":
    main()
