"""The rules of docs/architecture.md that a reader relies on, checked on the syntax trees of every source file.

Each rule is a function from modules to sentences about what breaks it; each is also shown a snippet it must refuse.
"""

from __future__ import annotations

import pytest
from tests.architecture.code_rules import (
    engines_words_stand_in_the_wire,
    files_and_functions_are_small,
    folders_can_be_seen_at_once,
    hashes_are_stable,
    no_state_outside_objects,
    one_place_makes_sessions,
    only_tasks_starts_tasks,
    package_files_hold_a_docstring_at_most,
)
from tests.architecture.import_rules import (
    PACKAGE_RANKS,
    command_lines_are_read_in_cli,
    deployables_meet_in_wire_only,
    files_make_no_circle,
    imports_are_absolute,
    libraries_stay_at_home,
    nothing_runs_in_threads,
    packages_import_downwards,
    rooms_make_no_circle,
    rooms_of_the_proxy_import_downwards,
    the_pure_part_does_no_io,
)
from tests.architecture.sources import CONNECTOR, ROOT, SOURCES, Module, Rule, module_of
from tests.architecture.twin_rules import pure_modules_have_a_test, unit_tests_have_a_module

BREACHES: tuple[tuple[Rule, str, str], ...] = (
    (packages_import_downwards, "ppd_core/a.py", "from ppd_shell.tasks import Tasks"),
    (packages_import_downwards, "ppd_wire/a.py", "from ppd_accuracy.statistics import gates"),
    (packages_import_downwards, "ppd_acc/a.py", "from ppd_proxy.shadow.journal import Journal"),
    (packages_import_downwards, "ppd_proxy/runtime/a.py", "def run():\n    from ppd_sim import command"),
    (packages_import_downwards, "ppd_sim/a.py", "import ppd_proxy.upstream.pool"),
    (packages_import_downwards, "ppd_utils/a.py", "x = 1"),
    (rooms_of_the_proxy_import_downwards, "ppd_proxy/upstream/a.py", "from ppd_proxy.request import director"),
    (rooms_of_the_proxy_import_downwards, "ppd_proxy/request/director.py", "import ppd_proxy.server.app"),
    (rooms_of_the_proxy_import_downwards, "ppd_proxy/shadow/a.py", "import ppd_proxy.telemetry.metrics"),
    (rooms_of_the_proxy_import_downwards, "ppd_proxy/utils.py", "x = 1"),
    (the_pure_part_does_no_io, "ppd_core/a.py", "import asyncio"),
    (the_pure_part_does_no_io, "ppd_core/policy/a.py", "from random import Random"),
    (the_pure_part_does_no_io, "ppd_core/handoff/a.py", "import os.path"),
    (the_pure_part_does_no_io, "ppd_proxy/request/exchange.py", "from ppd_proxy.config.config import Config"),
    (the_pure_part_does_no_io, "ppd_proxy/server/guarding.py", "import asyncio"),
    (the_pure_part_does_no_io, "ppd_wire/a.py", "def f():\n    return open('x')"),
    (command_lines_are_read_in_cli, "ppd_acc/batch/a.py", "import argparse"),
    (command_lines_are_read_in_cli, "ppd_acc/batch/a.py", "from ppd_acc.cli.flags import option"),
    (libraries_stay_at_home, "ppd_proxy/request/director.py", "from quart import request"),
    (libraries_stay_at_home, "ppd_proxy/upstream/a.py", "import zmq.asyncio"),
    (libraries_stay_at_home, "ppd_sim/a.py", "import torch"),
    (libraries_stay_at_home, "ppd_proxy/request/director.py", "import sqlite3"),
    (deployables_meet_in_wire_only, "ppd_proxy/discovery/a.py", "from ppd_connector.connector import Connector"),
    (deployables_meet_in_wire_only, CONNECTOR + "a.py", "from ppd_core.fleet.engine import Engine"),
    (imports_are_absolute, "ppd_core/a.py", "from .types import Engine"),
    (only_tasks_starts_tasks, "ppd_proxy/runtime/a.py", "import asyncio\nasyncio.create_task(run())"),
    (only_tasks_starts_tasks, "ppd_sim/a.py", "from asyncio import ensure_future\nensure_future(run())"),
    (one_place_makes_sessions, "ppd_proxy/server/a.py", "import aiohttp\nsession = aiohttp.ClientSession()"),
    (nothing_runs_in_threads, "ppd_proxy/telemetry/logs.py", "import threading"),
    (nothing_runs_in_threads, "ppd_acc/a.py", "from concurrent.futures import ThreadPoolExecutor"),
    (no_state_outside_objects, "ppd_proxy/server/a.py", "seen = {}"),
    (no_state_outside_objects, "ppd_proxy/server/a.py", "seen: tuple = ((1, [2]),)"),
    (no_state_outside_objects, "ppd_proxy/server/a.py", "from collections import deque\nlast = deque()"),
    (no_state_outside_objects, "ppd_acc/a.py", "class A:\n    seen = set()"),
    (no_state_outside_objects, "ppd_core/a.py", "class A:\n    seen: ClassVar[dict] = {}"),
    (no_state_outside_objects, "ppd_proxy/server/a.py", "def f():\n    global n"),
    (files_and_functions_are_small, "ppd_proxy/server/a.py", "x = 1\n" * 401),
    (files_and_functions_are_small, "scripts/a.py", "def f():\n" + "    x = 1\n" * 70),
    (package_files_hold_a_docstring_at_most, "ppd_proxy/server/__init__.py", "from ppd_proxy.server.app import app"),
    (hashes_are_stable, "ppd_core/a.py", "x = hash('a')"),
    (engines_words_stand_in_the_wire, "ppd_acc/a.py", "x = {'stream_options': {}}"),
    (engines_words_stand_in_the_wire, "ppd_proxy/a.py", "class A:\n    prompt_logprobs: int"),
    (engines_words_stand_in_the_wire, "ppd_core/a.py", "x = 'vllm:num_requests_running'"),
)
ALLOWED: tuple[tuple[Rule, str, str], ...] = (
    (packages_import_downwards, "ppd_proxy/cli/main.py", "from ppd_sim import command"),
    (packages_import_downwards, "ppd_acc/a.py", "from ppd_shell.http import make_session"),
    (rooms_of_the_proxy_import_downwards, "ppd_proxy/upstream/a.py", "from ppd_proxy.shadow.sample import Sample"),
    (the_pure_part_does_no_io, "ppd_wire/a.py", "from urllib.parse import urlsplit"),
    (command_lines_are_read_in_cli, "ppd_acc/cli/batch/a.py", "import argparse\nfrom ppd_acc.cli.flags import option"),
    (libraries_stay_at_home, "ppd_proxy/server/app.py", "from quart import Quart"),
    (deployables_meet_in_wire_only, "ppd_core/handoff/a.py", "from ppd_connector.wire import request_tag"),
    (only_tasks_starts_tasks, "ppd_shell/tasks.py", "import asyncio\nasyncio.create_task(run())"),
    (nothing_runs_in_threads, "ppd_proxy/telemetry/log_writer.py", "import threading"),
    (one_place_makes_sessions, "ppd_shell/http.py", "import aiohttp\nsession = aiohttp.ClientSession()"),
    (no_state_outside_objects, "ppd_proxy/server/a.py", "names = frozenset({'a'})\n__all__ = ('a',)"),
    (no_state_outside_objects, "ppd_proxy/server/a.py", "class A(Struct):\n    items: list = []"),
    (files_and_functions_are_small, "ppd_proxy/server/a.py", "def f():\n" + "    x = 1\n" * 69),
    (package_files_hold_a_docstring_at_most, "ppd_proxy/server/__init__.py", '"""What this room owns."""'),
    (hashes_are_stable, "ppd_core/a.py", "x = a.hash('a')"),
    (engines_words_stand_in_the_wire, "ppd_wire/a.py", "x = {'stream_options': {}}"),
    (engines_words_stand_in_the_wire, "ppd_core/handoff/a.py", "x = 'kv_transfer_params'"),
    (engines_words_stand_in_the_wire, "ppd_proxy/a.py", "def f():\n    'Takes kv_transfer_params.'"),
)
RULES: tuple[Rule, ...] = (
    *dict.fromkeys(rule for rule, _, _ in BREACHES),
    rooms_make_no_circle,
    files_make_no_circle,
    folders_can_be_seen_at_once,
    pure_modules_have_a_test,
    unit_tests_have_a_module,
)


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    """Every source file of the repository."""
    paths = sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))
    found = [module_of(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]
    packages = {module.package for module in found if module.name}
    assert packages == set(PACKAGE_RANKS), "the source files are not where this test looks"
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_sources_keep_the_rule(rule, modules):
    breaches = list(rule(modules))
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize(("rule", "path", "source"), BREACHES)
def test_rule_notices_a_breach(rule, path, source):
    assert list(rule([module_of(path, source)]))


@pytest.mark.parametrize(("rule", "path", "source"), ALLOWED)
def test_rule_lets_pass_what_is_allowed(rule, path, source):
    assert not list(rule([module_of(path, source)]))


def test_circle_of_rooms_is_noticed():
    telemetry = module_of("ppd_proxy/telemetry/a.py", "from ppd_proxy.upstream.pool import Pool")
    upstream = module_of("ppd_proxy/upstream/a.py", "from ppd_proxy.telemetry.metrics import Metrics")
    assert not list(rooms_make_no_circle([upstream]))
    assert list(rooms_make_no_circle([telemetry, upstream]))


def test_circle_of_files_is_noticed():
    """Of one room too, and of an import within a function."""
    pool = module_of("ppd_proxy/upstream/pool.py", "from ppd_proxy.upstream.leg import Leg")
    leg = module_of("ppd_proxy/upstream/leg.py", "def f():\n    from ppd_proxy.upstream import pool")
    assert not list(files_make_no_circle([pool]))
    assert list(files_make_no_circle([pool, leg]))


def test_crowded_folder_is_noticed():
    crowd = [module_of(f"ppd_proxy/server/a{number}.py", "x = 1") for number in range(21)]
    assert not list(folders_can_be_seen_at_once(crowd[:20]))
    assert list(folders_can_be_seen_at_once(crowd))


def test_a_pure_module_without_a_test_is_noticed():
    """Neither one that does IO, by itself or by what it imports, nor one without functions needs one."""
    pure = module_of("ppd_core/fleet/load.py", "def f():\n    return 1")
    reader = module_of("ppd_core/fleet/reader.py", "import os\ndef f():\n    return 1")
    user = module_of("ppd_core/fleet/user.py", "from ppd_core.fleet.reader import f\ndef g():\n    return f()")
    values = module_of("ppd_core/fleet/values.py", "A = 1")
    test = module_of("tests/unit/core/fleet/test_load_more.py", "")
    assert not list(pure_modules_have_a_test([pure, reader, user, values, test]))
    assert [each.split(":")[0] for each in pure_modules_have_a_test([pure, reader, user, values])] == [pure.path]


def test_a_unit_test_without_its_module_is_noticed():
    load = module_of("ppd_core/fleet/load.py", "")
    names = ("fleet/test_load", "fleet/test_loads", "test_load")
    tests = [module_of(f"tests/unit/core/{name}.py", "") for name in names]
    assert len(list(unit_tests_have_a_module([load, *tests]))) == 2
