#!/usr/bin/env python3
"""Names what of pyproject.toml's requirements is missing, too old or too new where this runs, on one line.

    .venv/bin/python scripts/missing.py EXTRA     ("": without one)

Also says `ppd-proxy` where that is not installed from this very checkout: sources that change would not be run. Needs
nothing but the standard library; requirements are a name, at most with a lowest version and the first that is too new.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def requirements(project: dict[str, Any], extra: str) -> Iterator[str]:
    """The requirements of the project with `extra` (or without one), extras of its own within that one resolved."""
    own = f"{project['name']}["
    for requirement in project["optional-dependencies"][extra] if extra else project["dependencies"]:
        if requirement.startswith(own):
            yield from requirements(project, requirement.removeprefix(own).rstrip("]"))
        else:
            yield requirement
    if extra:
        yield from requirements(project, "")


def is_met(requirement: str) -> bool:
    name, _, bounds = requirement.partition(">=")
    lowest, _, too_new = bounds.partition(",<")
    try:
        installed = numbers(version(name))
    except PackageNotFoundError:
        return False
    return numbers(lowest) <= installed and not (too_new and numbers(too_new) <= installed)


def numbers(text: str) -> list[int]:
    """A version's numbers up to the first part that is none."""
    found = []
    for part in filter(None, text.split(".")):
        if not part.isdecimal():
            break
        found.append(int(part))
    return found


def is_of_this_checkout(package: str, folder: str) -> bool:
    """Whether the package is imported from the folder, which is relative to the checkout."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return False
    return Path(spec.origin).resolve() == ROOT / folder / "__init__.py"


def main() -> int:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, folders = settings["project"], settings["tool"]["setuptools"]["package-dir"]
    missing = [each for each in dict.fromkeys(requirements(project, sys.argv[1])) if not is_met(each)]
    name = project["name"]
    if not is_met(name) or not all(is_of_this_checkout(*each) for each in folders.items()):
        missing.insert(0, name)
    print(" ".join(missing))
    return 0


if __name__ == "__main__":
    sys.exit(main())
