"""The tables of docs/reference/ name every flag, metric, reason and HTTP endpoint, and nothing that does not exist.

A table belongs to the nearest heading above it; the name stands in backticks in the first column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry

import reference_tables
from ppd_core.policy.plan import DecisionReason
from ppd_proxy.cli.main import build_parser
from ppd_proxy.config import config
from ppd_proxy.config.sections import Auth, Limits
from ppd_proxy.server.accuracy import accuracy_blueprint
from ppd_proxy.server.admin import admin_blueprint
from ppd_proxy.server.app import make_app
from ppd_proxy.server.data_path import GENERATION_PATHS
from ppd_proxy.server.engines import engines_blueprint
from ppd_proxy.server.pass_through import pass_through_blueprint
from ppd_proxy.telemetry.instruments import INSTRUMENTS
from ppd_sim.faults import FaultKind
from ppd_sim.model.model import ModelConfig
from ppd_wire.errors import Failure, Refusal

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"))
FIRST_CELL = re.compile(r"^\|\s*`([^`]+)`\s*\|")
CONVERTER = re.compile(r"<\w+(?:\([^)]*\))?:(\w+)>")


def reference(page: str) -> str:
    return (reference_tables.PAGES / f"{page}.md").read_text(encoding="utf-8")


def named(text: str, heading: str) -> list[str]:
    """The first column of the tables below the heading `heading`, whatever its level."""
    names: list[str] = []
    current = ""
    is_code = False
    for line in text.splitlines():
        is_code ^= line.startswith("```")
        if line.startswith("#") and not is_code:
            current = line.lstrip("#").strip()
        elif current == heading and (match := FIRST_CELL.match(line)):
            names.append(match[1])
    return names


def assert_same(in_table: list[str], in_code: Iterable[str]) -> None:
    wanted = set(in_code)
    assert sorted(wanted - set(in_table)) == [], "missing in the table"
    assert sorted(set(in_table) - wanted) == [], "in the table, but not in the code"
    assert len(in_table) == len(set(in_table)), "named twice"


def option_names(command: str) -> set[str]:
    """The flags of a subcommand. A switch's `--no-` twin is not named apart."""
    _, commands = build_parser([command])
    options = (action.option_strings for action in commands[command]._actions)
    return {names[0] if names[0].startswith("--") else names[-1] for names in options} - {"--help"}


def endpoints() -> set[str]:
    """`METHOD /path/<variable>` of every endpoint of the data path and of the Quart application."""
    # Nothing is called: only the map of URLs is read.
    auth, limits = Auth(), Limits()
    blueprints = (
        admin_blueprint(None, None, auth, None),
        engines_blueprint(None, auth),
        accuracy_blueprint(None, auth, None, None),
        pass_through_blueprint(None, None, auth, limits),
    )
    app = make_app(blueprints, control=None, fleet=None, registry=CollectorRegistry(), max_body_bytes=1)
    found = {f"POST {path}" for path in GENERATION_PATHS}
    for rule in app.url_map.iter_rules():
        path = CONVERTER.sub(r"<\1>", rule.rule)
        found |= {f"{method} {path}" for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


def test_settings_table_names_every_flag():
    assert_same(named(reference("settings"), "Settings"), option_names("serve"))


def test_check_takes_the_flags_of_serve():
    assert option_names("check") == option_names("serve") == {"--config", *(s.flag for s in config.settings())}


def test_simulate_table_names_every_flag():
    assert_same(named(reference("simulator"), "Simulated engines"), option_names("simulate"))


def test_metrics_table_names_every_metric():
    assert_same(named(reference("metrics"), "Metrics"), (instrument.name for instrument in INSTRUMENTS))


@pytest.mark.parametrize(
    ("heading", "reasons"), [("Decisions", DecisionReason), ("Refusals", Refusal), ("Failures", Failure)]
)
def test_reasons_tables_name_every_word(heading, reasons):
    assert_same(named(reference("reasons"), heading), reasons)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_reason_in_the_texts_exists(page):
    words = re.findall(r"\bthe reasons? `(\w+)`|;reason=(\w+)", page.read_text(encoding="utf-8"))
    known = {*DecisionReason, *Refusal, *Failure}
    assert sorted({first or second for first, second in words} - known) == []


def test_http_table_names_every_endpoint():
    assert_same(named(reference("http"), "HTTP"), endpoints())


def test_generated_tables_are_up_to_date():
    texts = [path.read_text(encoding="utf-8") for path in reference_tables.PAGES.glob("*.md")]
    marked = [name for text in texts for name in reference_tables.marked_names(text)]
    assert sorted(marked) == sorted(reference_tables.tables())
    for text in texts:
        assert reference_tables.rewritten(text) == text, "run scripts/reference_tables.py"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_variable_in_the_texts_exists(page):
    known = {s.variable for s in config.settings()}
    words = re.findall(r"`(PPD_(?!ACC_)[A-Z_]+)", page.read_text(encoding="utf-8"))
    assert [word for word in words if word not in known and not config.FOREIGN.fullmatch(word)] == []


def test_readme_can_be_read_at_once():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 200


def test_names_are_found_below_their_heading_only():
    text = "## Metrics\n```sh\n# no heading\n```\n| Name |\n|---|\n| `a_total` |\n### Other\n| `b_total` |\n"
    assert named(text, "Metrics") == ["a_total"]


def test_stale_name_is_noticed():
    with pytest.raises(AssertionError, match="not in the code"):
        assert_same(["a", "b"], ["a"])
    with pytest.raises(AssertionError, match="missing in the table"):
        assert_same(["a"], ["a", "b"])


def test_stale_table_is_rewritten():
    text = "before\n<!-- table: settings -->\n| old |\n<!-- end of table -->\nafter"
    fresh = reference_tables.rewritten(text)
    assert "| old |" not in fresh
    assert fresh.startswith("before\n<!-- table: settings -->\n| Flag |")
    assert fresh.endswith("<!-- end of table -->\nafter")
    assert reference_tables.rewritten(fresh) == fresh


def test_what_simulated_engines_can_be_told():
    assert_same(named(reference("simulator"), "The simulated model"), ModelConfig.__dataclass_fields__)
    assert_same(named(reference("simulator"), "Scripted faults"), get_args(FaultKind))
