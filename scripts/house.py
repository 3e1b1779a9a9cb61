#!/usr/bin/env python3
"""Counts how the house is built: rooms, modules, functions, names, and which modules have no test of their own.

    python scripts/house.py [--names] [ROOT]

Reads the syntax trees of all packages under proxy/ and imports none of them, so any checkout can be counted.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
MANY_ARGUMENTS = 7
BROAD = frozenset({"Exception", "BaseException"})
VALUES = frozenset({"dataclass", "Struct", "NamedTuple"})
IO_MODULES = frozenset(
    "asyncio socket ssl select selectors subprocess threading multiprocessing concurrent time logging random secrets "
    "uuid os io pathlib shutil tempfile http sqlite3 prometheus_client aiohttp httptools uvloop uvicorn quart zmq "
    "argparse rich".split()
)
Function = ast.FunctionDef | ast.AsyncFunctionDef
_Node = TypeVar("_Node", bound=ast.AST)


@dataclass(frozen=True, slots=True)
class Module:
    """One file under proxy/; `name` is dotted, as it is imported."""

    name: str
    lines: int
    nodes: tuple[ast.AST, ...] = field(repr=False)

    @property
    def folder(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def room(self) -> str:
        """Its package, or the first folder below that."""
        return ".".join(self.folder.split(".")[:2])

    def of(self, *kinds: type[_Node]) -> Iterator[_Node]:
        return (node for node in self.nodes if isinstance(node, kinds))

    def functions(self) -> Iterator[Function]:
        return self.of(ast.FunctionDef, ast.AsyncFunctionDef)

    def imported(self) -> Iterator[str]:
        """What is imported, wherever in the file: modules, and modules with the name that is taken from them."""
        for plain in self.of(ast.Import):
            yield from (alias.name for alias in plain.names)
        for node in self.of(ast.ImportFrom):
            if node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    @property
    def does_io(self) -> bool:
        """Whether it imports by itself what reads clocks, files or sockets, or talks to people."""
        return any(name.split(".")[0] in IO_MODULES for name in self.imported())


@dataclass(frozen=True, slots=True)
class Count:
    """One line of the table, and what was counted."""

    what: str
    figure: str
    names: tuple[str, ...] = ()


def counts(root: Path) -> list[Count]:
    """Every figure of a checkout, in the table's order. ValueError: there are no modules."""
    files = read_files(root / "proxy")
    modules = [each for each in files if not each.name.endswith(".__init__")]
    if not modules:
        raise ValueError(f"{root} has no modules under proxy/")
    sizes = sorted((module.lines, module.name) for module in modules)
    lengths = sorted((_lines_of(node), f"{each.name}.{node.name}") for each in modules for node in each.functions())
    tests = sorted((root / "tests").rglob("*.py"))
    pure = [module for module in modules if not module.does_io]
    return [
        _lines_of_rooms(files),
        Count("lines of tests", str(sum(len(path.read_text(encoding="utf-8").splitlines()) for path in tests))),
        Count("modules", str(len(modules))),
        _folders(modules),
        Count("lines of the median module", f"{median(size for size, _ in sizes):g}"),
        _largest("lines of the largest module", sizes),
        Count("lines of a function, 95th percentile", _percentile(95, lengths)),
        _largest("lines of the longest function", lengths),
        _counted("circles of files", (" ".join(circle) for circle in circles(imports(modules)))),
        _counted("class names used twice", class_names_used_twice(modules)),
        _counted(f"constructors with more than {MANY_ARGUMENTS} arguments", wide_constructors(modules)),
        _counted(f"values with more than {MANY_ARGUMENTS} fields", wide_values(modules)),
        _counted("functions that take an argparse.Namespace", namespaces(modules)),
        _counted("broad excepts", broad_excepts(modules)),
        _counted("modules without a like-named test", untested(modules, tests)),
        _counted("of them pure", untested(pure, tests)),
    ]


def read_files(folder: Path) -> list[Module]:
    """All modules of all packages in `folder`, and what marks the packages (`one.__init__`): lines, but no modules."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(folder).with_suffix("").parts)
        found.append(Module(name, len(text.splitlines()), tuple(ast.walk(ast.parse(text)))))
    return found


def imports(modules: Sequence[Module]) -> dict[str, list[str]]:
    """Which of the modules each of them imports."""
    known = {module.name for module in modules}
    return {each.name: sorted((known & set(each.imported())) - {each.name}) for each in modules}


def circles(edges: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""
    reached = {name: _reached(edges, name) for name in edges}
    groups = {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in edges}
    return sorted(list(group) for group in groups if group)


def _reached(edges: Mapping[str, Sequence[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += edges[name]
    return reached


def class_names_used_twice(modules: Sequence[Module]) -> Iterator[str]:
    owners: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        for node in module.of(ast.ClassDef):
            owners[node.name].append(module.name)
    return (f"{name}: {', '.join(names)}" for name, names in sorted(owners.items()) if len(names) > 1)


def wide_constructors(modules: Sequence[Module]) -> Iterator[str]:
    """`__init__`s that somebody wrote; `self` is no argument."""
    for module in modules:
        for owner in module.of(ast.ClassDef):
            for each in owner.body:
                if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                    if (count := len(_arguments(each)) - 1) > MANY_ARGUMENTS:
                        yield f"{module.name}.{owner.name}: {count}"


def wide_values(modules: Sequence[Module]) -> Iterator[str]:
    """Dataclasses, msgspec structs and named tuples, whose constructors are made for them."""
    for module in modules:
        for owner in module.of(ast.ClassDef):
            fields = [each for each in owner.body if isinstance(each, ast.AnnAssign)]
            if _is_value(owner) and len(fields) > MANY_ARGUMENTS:
                yield f"{module.name}.{owner.name}: {len(fields)}"


def namespaces(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for node in module.functions():
            annotations = [each.annotation for each in _arguments(node) if each.annotation is not None]
            if "Namespace" in _names(annotations):
                yield f"{module.name}.{node.name}"


def broad_excepts(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for node in module.of(ast.ExceptHandler):
            if node.type is None or BROAD & _names([node.type]):
                yield f"{module.name}:{node.lineno}"


def untested(modules: Sequence[Module], tests: Sequence[Path]) -> Iterator[str]:
    """A like-named test ends as the module's path does: `test_blend.py` or `test_kv_blend.py` of `kv/blend.py`."""
    names = {path.stem for path in tests}
    for module in modules:
        parts = module.name.split(".")
        if not any("_".join(["test", *parts[start:]]) in names for start in range(len(parts))):
            yield module.name


def _lines_of(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _arguments(node: Function) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


def _names(expressions: Iterable[ast.expr]) -> set[str]:
    """Every name in them, and the last part of dotted ones."""
    nodes = [node for expression in expressions for node in ast.walk(expression)]
    found = {node.id for node in nodes if isinstance(node, ast.Name)}
    return found | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def _is_value(node: ast.ClassDef) -> bool:
    """Its bases and decorators say so; structs that derive from structs of ours (`Reply`) are not known as such."""
    return bool(VALUES & _names([*node.bases, *node.decorator_list]))


def _lines_of_rooms(files: Sequence[Module]) -> Count:
    rooms: Counter[str] = Counter()
    for each in files:
        rooms[each.room] += each.lines
    return Count("lines of source", str(rooms.total()), _ranked(rooms))


def _folders(modules: Sequence[Module]) -> Count:
    folders = Counter(module.folder for module in modules)
    [(fullest, most)] = folders.most_common(1)
    return Count("folders", f"{len(folders)}; the fullest {most} ({fullest})", _ranked(folders))


def _ranked(counter: Counter[str]) -> tuple[str, ...]:
    return tuple(f"{count:5} {name}" for name, count in counter.most_common())


def _largest(what: str, sizes: Sequence[tuple[int, str]]) -> Count:
    return Count(what, "{} ({})".format(*sizes[-1]) if sizes else "0")


def _percentile(percent: int, sizes: Sequence[tuple[int, str]]) -> str:
    return str(sizes[percent * (len(sizes) - 1) // 100][0]) if sizes else "0"


def _counted(what: str, names: Iterable[str]) -> Count:
    listed = tuple(names)
    return Count(what, str(len(listed)), listed)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, metavar="ROOT", help="a checkout (this one)")
    parser.add_argument("--names", action="store_true", help="list what is counted")
    args = parser.parse_args(argv)
    try:
        told = counts(args.root)
    except ValueError as error:
        parser.error(str(error))
    for count in told:
        print(f"{count.what:<50} {count.figure}")
        if args.names:
            print("".join(f"    {name}\n" for name in count.names), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
