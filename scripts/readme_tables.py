#!/usr/bin/env python3
"""Writes the README's tables of settings, metrics and simulate flags from the code they describe.

Each table stands between two markers, `<!-- table: NAME -->` and `<!-- end of table -->`. Without arguments the README
is rewritten in place; `--print` shows the tables with their markers, for a README that has none yet.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ppd_proxy.cli.serve import FILE_VARIABLE
from ppd_proxy.config import config
from ppd_proxy.telemetry.instrument import Instrument
from ppd_proxy.telemetry.instruments import INSTRUMENTS
from ppd_shell.settings import Setting, Value
from ppd_sim import command

README = Path(__file__).parents[1] / "README.md"
END = "<!-- end of table -->"
_MARKED = re.compile(r"<!-- table: (?P<name>[a-z]+) -->\n.*?" + re.escape(END), re.DOTALL)


def tables() -> dict[str, str]:
    """Every generated table by the name in its marker."""
    return {"settings": _settings_table(), "metrics": _metrics_table(), "simulate": _simulate_table()}


def rewritten(readme: str) -> str:
    """The README's text with every marked table as it should be; KeyError names a table that does not exist."""
    current = tables()
    return _MARKED.sub(lambda match: _marked(match["name"], current[match["name"]]), readme)


def marked_names(readme: str) -> list[str]:
    """The names of the tables that the text has markers for."""
    return [match["name"] for match in _MARKED.finditer(readme)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the tables, change nothing")
    if parser.parse_args(argv).print:
        print("\n\n".join(_marked(name, table) for name, table in tables().items()))
        return 0
    before = README.read_text(encoding="utf-8")
    missing = sorted(set(tables()) - set(marked_names(before)))
    README.write_text(rewritten(before), encoding="utf-8")
    if missing:
        print(f"README.md has no markers for: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


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
    sys.exit(main())
