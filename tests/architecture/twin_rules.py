"""Which module has its tests where: tests/unit mirrors the rooms, `wire/test_events.py` tests `ppd_wire/events.py`.

A test's name may go on behind the module's: `test_leg_stream_ends.py` has more about `leg.py`.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tests.architecture.import_rules import IO_MODULES
from tests.architecture.sources import CONNECTOR, Module

UNIT = "tests/unit/"
TALKS = IO_MODULES | {"argparse"}


def pure_modules_have_a_test(modules: Sequence[Module]) -> Iterator[str]:
    """Of those with functions: tables and plain values have nothing to be tried."""
    stems, pure = _test_stems(modules), _pure(modules)
    for module in modules:
        folder, name = _twin(module)
        if module.name in pure and _has_functions(module):
            if not any(_is_of(stem, name) for stem in stems.get(folder, ())):
                yield f"{module.path}: no {folder}/test_{name}.py"


def unit_tests_have_a_module(modules: Sequence[Module]) -> Iterator[str]:
    names: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        folder, name = _twin(module)
        names[folder].append(name)
    for folder, stems in _test_stems(modules).items():
        for stem in stems:
            if not any(_is_of(stem, name) for name in names.get(folder, ())):
                yield f"{folder}/test_{stem}.py: no module of that name in its room"


def _test_stems(modules: Sequence[Module]) -> Mapping[str, list[str]]:
    """What follows `test_` in the names of unit tests, by folder."""
    stems: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        folder, _, file = module.path.rpartition("/")
        if module.path.startswith(UNIT) and file.startswith("test_"):
            stems[folder].append(file.removeprefix("test_").removesuffix(".py"))
    return stems


def _twin(module: Module) -> tuple[str, str]:
    """The folder of its tests, and its name; nothing where it is no deployed module."""
    if not module.is_deployed or module.path.endswith("/__init__.py"):
        return "", ""
    below = module.path.removeprefix("proxy/ppd_")
    if module.path.startswith(CONNECTOR):
        below = "connector/" + module.path.removeprefix(CONNECTOR)
    folder, _, file = (UNIT + below).rpartition("/")
    return folder, file.removesuffix(".py")


def _is_of(stem: str, name: str) -> bool:
    return stem == name or stem.startswith(name + "_")


def _pure(modules: Sequence[Module]) -> frozenset[str]:
    """Names of the modules that neither do IO nor import one that does."""
    imported: dict[str, set[str]] = {}
    for module in modules:
        if module.name:
            names = {name for _, name in module.imports()}
            imported[module.name] = names | {name.rpartition(".")[0] for name in names}
    pure = {name for name, others in imported.items() if not {other.split(".")[0] for other in others} & TALKS}
    while impure := {name for name in pure if imported[name] & imported.keys() - pure}:
        pure -= impure
    return frozenset(pure)


def _has_functions(module: Module) -> bool:
    """Beside those of protocols, which say a shape."""
    functions = (node for node in module.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return any(ast.unparse(node.body[-1]) != "..." for node in functions)
