"""The rules of docs/architecture.md that a reader relies on, checked on the syntax trees of every source file.

Each rule is a function from modules to sentences about what breaks it; each is also shown a snippet it must refuse.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "proxy/ppd_proxy/"
CONNECTOR = "connector_patches/ppd_connector/"
SOURCES = ("proxy", "connector_patches", "scripts", "benchmarks", "tests")

# Imports go from a later line to an earlier one, or within a line as long as that makes no circle.
LAYERS = (
    ("errors", "config_error", "core"),
    ("policy", "handoff", "accuracy", "settings", "sections", "config", "tasks", "keys", "http_session"),
    ("upstream", "discovery", "store", "shadow", "telemetry"),
    ("director", "handling", "planning", "collaborators", "offering", "prompt_watch", "remember"),
    ("server", "runtime", "watching"),
    ("cli", "acc"),
)
RANKS = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
PURE = ("errors", "config_error", "core", "policy", "handoff", "accuracy")
PURE_FILES = (PACKAGE + "server/guarding.py", PACKAGE + "server/heads.py")
PURE_MODULES = tuple(path.removeprefix("proxy/").removesuffix(".py").replace("/", ".") + "." for path in PURE_FILES)
IO_MODULES = frozenset(
    "asyncio socket ssl select selectors subprocess threading multiprocessing concurrent time logging random secrets "
    "uuid os io pathlib shutil tempfile http sqlite3 prometheus_client aiohttp httptools uvloop uvicorn quart "
    "zmq".split()
)
THREADS = ("threading", "_thread", "concurrent", "multiprocessing")
THREAD_HOMES = (PACKAGE + "telemetry/log_writer.py",)  # a write that nobody reads must hold up neither loop nor end
HOMES = {
    "quart": (PACKAGE + "server/",),
    "zmq": (PACKAGE + "discovery/", PACKAGE + "sim/", CONNECTOR),
    "sqlite3": (PACKAGE + "shadow/", PACKAGE + "acc/history.py"),
    "torch": (CONNECTOR,),
    "vllm": (CONNECTOR,),
}
SESSION_HOMES = (PACKAGE + "http_session.py", PACKAGE + "sim/", PACKAGE + "cli/")
MUTABLE = ("dict", "list", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque", "WeakValueDictionary")
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 70


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file; `path` is relative to the repository and uses slashes."""

    path: str
    source: str = field(repr=False)
    tree: ast.Module = field(repr=False)
    nodes: Sequence[ast.AST] = field(repr=False)
    """All of the tree, for each rule to look through."""

    @property
    def part(self) -> str:
        """The package or top-level module of ppd_proxy this file belongs to, or nothing."""
        return (
            self.path.removeprefix(PACKAGE).split("/")[0].removesuffix(".py") if self.path.startswith(PACKAGE) else ""
        )

    @property
    def is_deployed(self) -> bool:
        return self.path.startswith((PACKAGE, CONNECTOR))

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of everything imported, wherever in the file; relative imports begin with a dot."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = "." * node.level + (node.module or "")
                yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)

    def parts_imported(self) -> Iterator[tuple[int, str]]:
        for line, name in self.imports():
            if name.startswith("ppd_proxy."):
                yield line, name.split(".")[1]


Rule = Callable[[Sequence[Module]], Iterator[str]]


def imports_point_down(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        part = module.part
        if part in ("", "__init__"):
            continue
        if part not in RANKS and part != "sim":
            yield f"{module.path}: {part} is in no line of LAYERS"
            continue
        rank = RANKS["config"] if part == "sim" else RANKS[part]
        for line, other in module.parts_imported():
            if other == "sim":
                is_allowed = part in ("cli", "sim")
            else:
                is_allowed = other in RANKS and RANKS[other] <= rank
            if not is_allowed:
                yield f"{module.path}:{line}: {part} may not import {other}"


def imports_make_no_circle(modules: Sequence[Module]) -> Iterator[str]:
    edges: dict[str, set[str]] = {}
    for module in modules:
        if module.part:
            edges.setdefault(module.part, set()).update(part for _, part in module.parts_imported())
    for start in sorted(edges):
        reached: set[str] = set()
        todo = sorted(edges[start] - {start})
        while todo:
            part = todo.pop()
            if part not in reached:
                reached.add(part)
                todo += edges.get(part, ())
        if start in reached:
            yield f"{start} imports itself by way of others ({', '.join(sorted(reached - {start}))})"


def the_pure_part_does_no_io(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.part not in PURE and module.path not in PURE_FILES:
            continue
        for line, name in module.imports():
            root = name.split(".")[0]
            if root in IO_MODULES or name.startswith("urllib.request"):
                yield f"{module.path}:{line}: {module.part} does no IO, reads no clock and draws no lots: {root}"
        for line, name in module.imports():
            part = name.split(".")[1] if name.startswith("ppd_proxy.") else None
            if part is not None and part not in PURE and not name.startswith(PURE_MODULES):
                yield f"{module.path}:{line}: {module.part} is pure, {part} is not"
        for call in _calls(module, "open", "print", "input"):
            yield f"{module.path}:{call.lineno}: {module.part} does no IO: {_name(call.func)}()"


def libraries_stay_at_home(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.is_deployed:
            for line, name in module.imports():
                homes = HOMES.get(name.split(".")[0])
                if homes is not None and not module.path.startswith(homes):
                    yield f"{module.path}:{line}: {name.split('.')[0]} belongs in {', '.join(homes)}"


def deployables_meet_in_wire_only(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for line, name in module.imports():
            if module.path.startswith(CONNECTOR) and name.split(".")[0] == "ppd_proxy":
                yield f"{module.path}:{line}: the connector never imports ppd_proxy"
            if module.path.startswith(PACKAGE) and name.split(".")[0] == "ppd_connector":
                if not name.startswith("ppd_connector.wire"):
                    yield f"{module.path}:{line}: of ppd_connector only wire may be imported"


def imports_are_absolute(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        yield from (f"{module.path}:{line}: {name}" for line, name in module.imports() if name.startswith("."))


def only_tasks_starts_tasks(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.path.startswith(PACKAGE) and module.path != PACKAGE + "tasks.py":
            for call in _calls(module, "create_task", "ensure_future"):
                yield f"{module.path}:{call.lineno}: use tasks.Tasks.spawn"


def one_place_makes_sessions(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.is_deployed and not module.path.startswith(SESSION_HOMES):
            for call in _calls(module, "ClientSession"):
                yield f"{module.path}:{call.lineno}: take the session that http_session.py made"


def nothing_runs_in_threads(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.path.startswith(PACKAGE) and module.path not in THREAD_HOMES:
            for line, name in module.imports():
                if name.split(".")[0] in THREADS:
                    yield f"{module.path}:{line}: one event loop owns all state"


def no_state_outside_objects(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if not module.is_deployed:
            continue
        classes = [node for node in module.nodes if isinstance(node, ast.ClassDef)]
        shared = [*module.tree.body, *(item for owner in classes for item in owner.body if not _is_field(item))]
        for node in shared:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _is_mutable(node.value):
                yield f"{module.path}:{node.lineno}: shared by everyone and mutable; use a tuple or a MappingProxyType"
        for node in module.nodes:
            if isinstance(node, ast.Global):
                yield f"{module.path}:{node.lineno}: global {', '.join(node.names)}"


def files_and_functions_are_small(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        lines = len(module.source.splitlines())
        if lines > MAX_MODULE_LINES:
            yield f"{module.path}: {lines} lines, at most {MAX_MODULE_LINES}"
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    yield f"{module.path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def package_files_are_empty(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.path.endswith("/__init__.py") and module.source.strip():
            yield f"{module.path}: not empty; import names from the module that defines them"


def hashes_are_stable(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for call in module.nodes:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "hash":
                yield f"{module.path}:{call.lineno}: hash() differs from process to process; use xxhash"


def _calls(module: Module, *names: str) -> Iterator[ast.Call]:
    for node in module.nodes:
        if isinstance(node, ast.Call) and _name(node.func) in names:
            yield node


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_field(statement: ast.stmt) -> bool:
    """A default in a class body that each object gets a copy of (dataclasses and msgspec see to that)."""
    return isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(statement.annotation)


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Tuple):
        return any(_is_mutable(item) for item in value.elts)
    if isinstance(value, ast.Call):
        return _name(value.func) in MUTABLE
    return isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp)


BREACHES: tuple[tuple[Rule, str, str], ...] = (
    (imports_point_down, "core/a.py", "from ppd_proxy.policy.decide import decide"),
    (imports_point_down, "upstream/a.py", "from ppd_proxy import director"),
    (imports_point_down, "director.py", "import ppd_proxy.server.app"),
    (imports_point_down, "runtime.py", "def run():\n    from ppd_proxy.sim import command"),
    (imports_point_down, "sim/a.py", "from ppd_proxy.upstream.pool import Pool"),
    (imports_point_down, "utils.py", "x = 1"),
    (the_pure_part_does_no_io, "core/a.py", "import asyncio"),
    (the_pure_part_does_no_io, "policy/a.py", "from random import Random"),
    (the_pure_part_does_no_io, "handoff/a.py", "import os.path"),
    (the_pure_part_does_no_io, "handoff/a.py", "from ppd_proxy.config import Config"),
    (the_pure_part_does_no_io, "server/guarding.py", "import asyncio"),
    (the_pure_part_does_no_io, "core/a.py", "def f():\n    return open('x')"),
    (libraries_stay_at_home, "director.py", "from quart import request"),
    (libraries_stay_at_home, "upstream/a.py", "import zmq.asyncio"),
    (libraries_stay_at_home, "sim/a.py", "import torch"),
    (libraries_stay_at_home, "director.py", "import sqlite3"),
    (deployables_meet_in_wire_only, "discovery/a.py", "from ppd_connector.connector import Connector"),
    (deployables_meet_in_wire_only, CONNECTOR + "a.py", "from ppd_proxy.core.types import Engine"),
    (imports_are_absolute, "core/a.py", "from .types import Engine"),
    (only_tasks_starts_tasks, "runtime.py", "import asyncio\nasyncio.create_task(run())"),
    (only_tasks_starts_tasks, "sim/a.py", "from asyncio import ensure_future\nensure_future(run())"),
    (one_place_makes_sessions, "server/a.py", "import aiohttp\nsession = aiohttp.ClientSession()"),
    (nothing_runs_in_threads, "telemetry/logs.py", "import threading"),
    (nothing_runs_in_threads, "server/a.py", "from concurrent.futures import ThreadPoolExecutor"),
    (no_state_outside_objects, "server/a.py", "seen = {}"),
    (no_state_outside_objects, "server/a.py", "seen: tuple = ((1, [2]),)"),
    (no_state_outside_objects, "server/a.py", "from collections import deque\nlast = deque()"),
    (no_state_outside_objects, "server/a.py", "class A:\n    seen = set()"),
    (no_state_outside_objects, "server/a.py", "class A:\n    seen: ClassVar[dict] = {}"),
    (no_state_outside_objects, "server/a.py", "def f():\n    global n"),
    (files_and_functions_are_small, "server/a.py", "x = 1\n" * 401),
    (files_and_functions_are_small, "scripts/a.py", "def f():\n" + "    x = 1\n" * 70),
    (package_files_are_empty, "server/__init__.py", "from ppd_proxy.server.app import app"),
    (hashes_are_stable, "core/a.py", "x = hash('a')"),
)

ALLOWED: tuple[tuple[Rule, str, str], ...] = (
    (imports_point_down, "cli/main.py", "from ppd_proxy.sim import command"),
    (imports_point_down, "upstream/a.py", "from ppd_proxy.telemetry.metrics import Metrics"),
    (the_pure_part_does_no_io, "core/a.py", "from urllib.parse import urlsplit"),
    (libraries_stay_at_home, "server/app.py", "from quart import Quart"),
    (deployables_meet_in_wire_only, "handoff/a.py", "from ppd_connector.wire import request_tag"),
    (only_tasks_starts_tasks, "tasks.py", "import asyncio\nasyncio.create_task(run())"),
    (nothing_runs_in_threads, "telemetry/log_writer.py", "import threading"),
    (one_place_makes_sessions, "http_session.py", "import aiohttp\nsession = aiohttp.ClientSession()"),
    (no_state_outside_objects, "server/a.py", "names = frozenset({'a'})\n__all__ = ('a',)"),
    (no_state_outside_objects, "server/a.py", "class A(Struct):\n    items: list = []"),
    (files_and_functions_are_small, "server/a.py", "def f():\n" + "    x = 1\n" * 69),
    (hashes_are_stable, "core/a.py", "x = a.hash('a')"),
)

RULES: tuple[Rule, ...] = (*dict.fromkeys(rule for rule, _, _ in BREACHES), imports_make_no_circle)


def _module(path: str, source: str) -> Module:
    is_full = path.split("/")[0] in SOURCES
    tree = ast.parse(source)
    return Module(path if is_full else PACKAGE + path, source, tree, tuple(ast.walk(tree)))


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    """Every source file of the repository."""
    paths = sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))
    found = [_module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]
    assert any(module.part == "core" for module in found), "the source files are not where this test looks"
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_sources_keep_the_rule(rule, modules):
    breaches = list(rule(modules))
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize(("rule", "path", "source"), BREACHES)
def test_rule_notices_a_breach(rule, path, source):
    assert list(rule([_module(path, source)]))


@pytest.mark.parametrize(("rule", "path", "source"), ALLOWED)
def test_rule_lets_pass_what_is_allowed(rule, path, source):
    assert not list(rule([_module(path, source)]))


def test_circle_of_imports_is_noticed():
    telemetry = _module("telemetry/a.py", "from ppd_proxy.upstream.pool import Pool")
    upstream = _module("upstream/a.py", "from ppd_proxy.telemetry.metrics import Metrics")
    assert not list(imports_make_no_circle([upstream]))
    assert list(imports_make_no_circle([telemetry, upstream]))
