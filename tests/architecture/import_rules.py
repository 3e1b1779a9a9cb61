"""Which module may import what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from tests.architecture.sources import CONNECTOR, PROXY, Module, called, calls

# A package imports those on earlier lines, and of its own line itself only.
PACKAGES = (("ppd_wire", "ppd_accuracy"), ("ppd_core",), ("ppd_shell",), ("ppd_sim",), ("ppd_acc", "ppd_proxy"))
PACKAGE_RANKS = {package: rank for rank, packages in enumerate(PACKAGES) for package in packages}
# The same for the rooms of ppd_proxy; within a line as long as that makes no circle.
LAYERS = (
    ("config", "control", "keys"),
    ("admission",),
    ("upstream", "discovery", "store", "shadow"),
    ("request",),
    ("server",),
    ("telemetry",),  # shows what others know: nobody asks it
    ("runtime",),
    ("cli",),
)
RANKS = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
PURE = (
    "ppd_wire",
    "ppd_accuracy",
    "ppd_core",
    "ppd_proxy.control",
    "ppd_proxy.server.client_limits",
    "ppd_proxy.server.guarding",
    "ppd_proxy.server.heads",
    "ppd_proxy.upstream.events",
    "ppd_proxy.upstream.known_head",
    "ppd_proxy.upstream.leg_request",
    *(
        f"ppd_proxy.request.{each}"
        for each in (
            "answering", "attempt", "exchange", "legs", "ongoing", "planner", "prompt_watch", "reader", "record",
            "remember", "request", "serving", "signals",
        )
    ),
    *(f"ppd_proxy.shadow.{each}" for each in ("canary", "check", "judge", "replay", "sample", "schedule", "seeds")),
)
ARGPARSE_HOMES = ("proxy/ppd_proxy/cli/", "proxy/ppd_acc/cli/", "proxy/ppd_sim/command.py")
IO_MODULES = frozenset(
    "asyncio socket ssl select selectors subprocess threading multiprocessing concurrent time logging random secrets "
    "uuid os io pathlib shutil tempfile http sqlite3 prometheus_client aiohttp httptools uvloop uvicorn quart "
    "zmq".split()
)
THREADS = ("threading", "_thread", "concurrent", "multiprocessing")
THREAD_HOMES = (PROXY + "telemetry/log_writer.py",)  # a write that nobody reads must hold up neither loop nor end
HOMES = {
    "quart": (PROXY + "server/",),
    "uvicorn": ("tests/",),  # what ours is held against
    "zmq": (PROXY + "discovery/", "proxy/ppd_sim/", CONNECTOR),
    "sqlite3": ("proxy/ppd_shell/sqlite.py", PROXY + "shadow/journal.py", "proxy/ppd_acc/reports/history.py"),
    "torch": (CONNECTOR,),
    "vllm": (CONNECTOR,),
}


def packages_import_downwards(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if not module.name:
            continue
        if module.package not in PACKAGE_RANKS:
            yield f"{module.path}: {module.package} is in no line of PACKAGES"
            continue
        for line, name in _ours(module):
            other = name.split(".")[0]
            is_below = PACKAGE_RANKS[other] < PACKAGE_RANKS[module.package]
            if other == "ppd_sim":  # which ppd-proxy sim starts
                is_below = module.name.startswith("ppd_proxy.cli.")
            if other != module.package and not is_below:
                yield f"{module.path}:{line}: {module.package} may not import {other}"


def rooms_of_the_proxy_import_downwards(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.package != "ppd_proxy" or module.name == "ppd_proxy":
            continue
        room = module.name.split(".")[1]
        if room not in RANKS:
            yield f"{module.path}: {room} is in no line of LAYERS"
            continue
        for line, name in _ours(module):
            other = name.split(".")[1]
            if name.startswith("ppd_proxy.") and RANKS.get(other, len(LAYERS)) > RANKS[room]:
                yield f"{module.path}:{line}: {room} may not import {other}"


def rooms_make_no_circle(modules: Sequence[Module]) -> Iterator[str]:
    """A room is a folder of a package, or a module at its top."""

    def room(name: str) -> str:
        return ".".join(name.split(".")[:2])

    edges: dict[str, set[str]] = {}
    for module in modules:
        if module.name.count("."):
            edges.setdefault(room(module.name), set()).update(room(name) for _, name in _ours(module))
    yield from _circles(edges)


def files_make_no_circle(modules: Sequence[Module]) -> Iterator[str]:
    known = {module.name for module in modules if module.name}
    edges: dict[str, set[str]] = {}
    for module in modules:
        if module.name:
            named = {name if name in known else name.rpartition(".")[0] for _, name in _ours(module)}
            edges[module.name] = named & known
    yield from _circles(edges)


def _circles(edges: Mapping[str, set[str]]) -> Iterator[str]:
    """The first circle, if there is any; an edge to itself is none."""
    try:
        TopologicalSorter({each: others - {each} for each, others in edges.items()}).prepare()
    except CycleError as error:
        yield " is imported by ".join(error.args[1])


def the_pure_part_does_no_io(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if not _is_in(module.name, PURE):
            continue
        for line, name in module.imports():
            root = name.split(".")[0]
            if root in IO_MODULES or name.startswith("urllib.request"):
                yield f"{module.path}:{line}: {module.package} does no IO, reads no clock and draws no lots: {root}"
        for line, name in _ours(module):
            if not _is_in(name, PURE):
                yield f"{module.path}:{line}: {module.name} is pure, {name} is not"
        for call in calls(module, "open", "print", "input"):
            yield f"{module.path}:{call.lineno}: {module.package} does no IO: {called(call.func)}()"


def command_lines_are_read_in_cli(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.name and not module.path.startswith(ARGPARSE_HOMES):
            for line, name in module.imports():
                if name.split(".")[0] == "argparse" or name.startswith("ppd_acc.cli."):
                    yield f"{module.path}:{line}: command lines are read in {', '.join(ARGPARSE_HOMES)}"


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
            if module.path.startswith(CONNECTOR) and name.split(".")[0] in PACKAGE_RANKS:
                yield f"{module.path}:{line}: the connector never imports {name.split('.')[0]}"
            if module.name and name.split(".")[0] == "ppd_connector":
                if not name.startswith("ppd_connector.wire"):
                    yield f"{module.path}:{line}: of ppd_connector only wire may be imported"


def imports_are_absolute(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        yield from (f"{module.path}:{line}: {name}" for line, name in module.imports() if name.startswith("."))


def nothing_runs_in_threads(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.name and module.path not in THREAD_HOMES:
            for line, name in module.imports():
                if name.split(".")[0] in THREADS:
                    yield f"{module.path}:{line}: one event loop owns all state"


def _ours(module: Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of what is imported of the packages below proxy/."""
    return ((line, name) for line, name in module.imports() if name.split(".")[0] in PACKAGE_RANKS)


def _is_in(name: str, rooms: Sequence[str]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)
