"""config validate: is a configuration file right?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flag
from ppd_acc.cli.settings import FILE_NAMES, mistakes_of, read_tables, unknown_of
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.surroundings import Surroundings


def _path(given: Given) -> Path:
    default = next((name for name in FILE_NAMES if (given.directory / name).is_file()), None)
    files = (given.flag("path"), given.flag("config"), default)
    file = next((each for each in files if each is not None), None)
    if file is None:
        raise Mistake(f"no {' or '.join(FILE_NAMES)} here; give the file's path, or begin with ppd-acc init")
    return given.directory / file


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    path: Path = flag(
        "path", nargs="?", metavar="FILE", help=f"default: --config, else {FILE_NAMES[0]}, else {FILE_NAMES[1]}",
        read=_path,
    )  # fmt: skip


def run(options: Options, _: Surroundings) -> Result:
    path = options.path
    tables = read_tables(path)
    mistakes, unknown = tuple(mistakes_of(tables)), tuple(unknown_of(tables))
    if mistakes:
        raise Mistake("\n".join(f"{path}: {each}" for each in (*mistakes, *unknown)))
    names = [name for name, table in tables.items() if isinstance(table, dict)]
    verdict = f"{path}: valid" + (f", {len(unknown)} unknown" if unknown else "")
    return Result(
        exit=Exit.PASS,
        data={"path": str(path), "tables": names, "unknown": list(unknown)},
        view=(verdict,),
        notes=tuple(f"{path}: {each}" for each in unknown),
    )
