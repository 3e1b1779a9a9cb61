"""Source files as the rules see them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROXY = "proxy/ppd_proxy/"
CONNECTOR = "connector_patches/ppd_connector/"
SOURCES = ("proxy", "connector_patches", "scripts", "benchmarks", "tests")


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file; `path` is relative to the repository and uses slashes."""

    path: str
    source: str = field(repr=False)
    tree: ast.Module = field(repr=False)
    nodes: Sequence[ast.AST] = field(repr=False)
    """All of the tree, for each rule to look through."""

    @property
    def name(self) -> str:
        """Dotted, of a module below proxy/; nothing elsewhere."""
        if not self.path.startswith("proxy/"):
            return ""
        return self.path.removeprefix("proxy/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def package(self) -> str:
        return self.name.split(".")[0]

    @property
    def is_deployed(self) -> bool:
        return self.path.startswith(("proxy/", CONNECTOR))

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of everything imported, wherever in the file; relative imports begin with a dot."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = "." * node.level + (node.module or "")
                yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


Rule = Callable[[Sequence[Module]], Iterator[str]]


def module_of(path: str, source: str) -> Module:
    is_full = path.split("/")[0] in SOURCES
    tree = ast.parse(source)
    return Module(path if is_full else "proxy/" + path, source, tree, tuple(ast.walk(tree)))


def calls(module: Module, *names: str) -> Iterator[ast.Call]:
    for node in module.nodes:
        if isinstance(node, ast.Call) and called(node.func) in names:
            yield node


def called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
