"""profiles: which named sampling settings there are."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from ppd_acc.cli.options import derived
from ppd_acc.cli.settings import BUILT_IN_PROFILES, Settings
from ppd_acc.outcome import Exit, Result
from ppd_acc.surroundings import Surroundings

_COLUMNS = ("temperature", "top_p", "seed", "max_tokens", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    settings: Settings = derived(lambda given: given.settings)


def run(options: Options, _: Surroundings) -> Result:
    settings = options.settings
    own = settings.tables.get("profiles", {})
    table = Table("profile", *_COLUMNS, "from")
    profiles = {}
    for name, values in sorted(settings.profiles.items()):
        source = str(settings.source) if name in own else "built in"
        profiles[name] = {"values": dict(values), "source": source}
        table.add_row(*(Text(str(each)) for each in (name, *(values.get(key, "") for key in _COLUMNS), source)))
    replaced = [name for name in own if name in BUILT_IN_PROFILES]
    notes = tuple(f"profiles.{name} of the file replaces the built-in one" for name in replaced)
    return Result(exit=Exit.PASS, data={"profiles": profiles}, view=(table,), notes=notes)
