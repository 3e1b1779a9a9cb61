#!/usr/bin/env python3
"""Writes the map of docs/architecture.md from the sources: which rooms there are, what each owns, what it imports.

    python scripts/rooms.py

A room is a folder of a package, or a module at its top. The pictures leave out what follows from other arrows. What a
room owns is what its `__init__` says first.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import house

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("ppd_wire", "ppd_accuracy", "ppd_core", "ppd_shell", "ppd_sim", "ppd_acc", "ppd_proxy")
_MARKED = re.compile(r"(<!-- map: (?P<name>\w+) -->\n).*?(<!-- end of map -->)", re.DOTALL)
Edges = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class House:
    """`rooms`: what each folder owns, by package and then by name ("" for the package). `edges`: which rooms a room
    imports, both as `package.room`."""

    rooms: Mapping[str, Mapping[str, str]]
    edges: Edges


def read(root: Path) -> House:
    """The rooms of a checkout. Raises KeyError for a package that is not among PACKAGES."""
    modules = [each for each in house.read_files(root / "proxy") if not each.name.endswith(".__init__")]
    names = frozenset(each.name for each in modules)
    edges: dict[str, set[str]] = defaultdict(set)
    for name, imported in house.imports(modules).items():
        edges[_room(name)] |= {_room(each) for each in imported if each in names} - {_room(name)}
    rooms: dict[str, dict[str, str]] = {package: {} for package in PACKAGES}
    for path in sorted((root / "proxy").glob("*/__init__.py")) + sorted((root / "proxy").glob("*/*/__init__.py")):
        package, *folder = path.parent.relative_to(root / "proxy").parts
        rooms[package]["".join(folder)] = _owns(path)
    return House(rooms, {name: frozenset(others) for name, others in edges.items()})


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _owns(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def picture(built: House) -> str:
    """The packages, with their rooms, as a Mermaid graph: an arrow points at what is imported."""
    lines = ["```mermaid", "flowchart TD"]
    for package in reversed(PACKAGES):
        names = " · ".join(name for name in built.rooms[package] if name)
        lines.append(f'  {package}["<b>{package}</b>' + (f"<br/>{names}" if names else "") + '"]')
    packages: dict[str, set[str]] = {package: set() for package in PACKAGES}
    for room, others in built.edges.items():
        packages[room.split(".")[0]] |= {other.split(".")[0] for other in others}
    lines += _arrows({name: frozenset(others - {name}) for name, others in packages.items()})
    return "\n".join([*lines, "```"])


def proxy_picture(built: House) -> str:
    """The rooms of ppd_proxy among themselves."""
    edges = {
        room.partition(".")[2]: frozenset(other.partition(".")[2] for other in others if other.startswith("ppd_proxy."))
        for room, others in sorted(built.edges.items())
        if room.startswith("ppd_proxy.")
    }
    return "\n".join(["```mermaid", "flowchart TD", *_arrows(edges), "```"])


def _arrows(edges: Edges) -> Iterator[str]:
    """Without those that follow from others."""
    for room in edges:
        further = {far for other in edges[room] for far in _below(edges, other)}
        nearest = edges[room] - further
        yield from (f"  {room} --> {other}" for other in sorted(nearest))


def _below(edges: Edges, room: str) -> set[str]:
    reached: set[str] = set()
    waiting = list(edges.get(room, ()))
    while waiting:
        each = waiting.pop()
        if each not in reached:
            reached.add(each)
            waiting += edges.get(each, ())
    return reached


def table(built: House) -> str:
    """Every room, and what it owns."""
    lines = ["| Room | Owns |", "| --- | --- |"]
    for package in PACKAGES:
        for name, owns in built.rooms[package].items():
            shown = f"`{package}/{name}`" if name else f"**`{package}`**"
            lines.append(f"| {shown} | {owns} |")
    return "\n".join(lines)


def rewritten(page: str, built: House) -> str:
    """The page with its maps as they should be; KeyError names a map that does not exist."""
    maps = {"packages": picture, "proxy": proxy_picture, "rooms": table}
    return _MARKED.sub(lambda match: f"{match[1]}\n{maps[match['name']](built)}\n\n{match[3]}", page)


def main() -> int:
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), read(ROOT)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
