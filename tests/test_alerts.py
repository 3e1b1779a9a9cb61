"""docs/alerts.yml names only metrics and labels that the proxy has, and does what its rules say.

The rules are run by promtool (Debian: package prometheus); without it on the path only the names are checked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ppd_proxy.telemetry.instruments import INSTRUMENTS

TESTS = Path(__file__).parent
RULES = TESTS.parent / "docs" / "alerts.yml"
TABLE = {instrument.name: instrument for instrument in INSTRUMENTS}
PROMETHEUS_LABELS = {"job", "instance"}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}

SELECTOR = re.compile(r"\b(ppd_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
TEMPLATE = re.compile(r"\$labels\.(\w+)")


def rules(text: str) -> list[tuple[str, str, str]]:
    """(name, expression, labels and annotations) of every alert."""
    found = []
    for block in re.split(r"^\s*- alert: ", text, flags=re.M)[1:]:
        name, _, rest = block.partition("\n")
        match = re.search(r"^\s*expr:(.*?)^\s*(?:for|labels|annotations):", rest, re.M | re.S)
        assert match, f"{name} has no expr before for, labels or annotations"
        found.append((name.strip(), match[1], rest[match.end(1) :]))
    return found


def instrument(name: str):
    """What the series `name` belongs to, or None."""
    return TABLE.get(name) or next(
        (table for stem, table in TABLE.items() for end in SUFFIXES.get(table.kind, ()) if name == stem + end), None
    )


def mistakes(text: str) -> list[str]:
    found = []
    for alert, expression, rest in rules(text):
        labels = set(PROMETHEUS_LABELS)
        for name, matchers in SELECTOR.findall(expression):
            told = instrument(name)
            if told is None:
                found.append(f"{alert}: no metric {name}")
                continue
            labels |= set(told.labels)
            for label, operator, value in MATCHER.findall(matchers):
                if label not in told.labels:
                    found.append(f"{alert}: {name} has no label {label}")
                closed = re.findall(r"`([^`]+)`", told.label_values.get(label, ""))
                if operator == "=" and closed and label != "scope" and value not in closed:
                    found.append(f"{alert}: {name} has no {label} {value}")
        grouped = {label.strip() for group in GROUPING.findall(expression) for label in group.split(",")}
        used = grouped | set(TEMPLATE.findall(rest))
        found += [f"{alert}: no label {label}" for label in sorted(used - labels)]
    return found


@pytest.fixture(scope="module")
def text() -> str:
    return RULES.read_text(encoding="utf-8")


def test_every_metric_and_label_of_the_rules_exists(text):
    assert mistakes(text) == []


def test_every_alert_has_its_own_name_and_says_what_is_wrong(text):
    names = [name for name, _, _ in rules(text)]
    assert len(names) == len(set(names)) == text.count("- alert:") > 10
    assert all("summary:" in rest and "severity:" in rest for _, _, rest in rules(text))


@pytest.mark.parametrize(
    ("expression", "mistake"),
    [
        ("ppd_nothing == 0", "no metric ppd_nothing"),
        ("ppd_inflight_total > 0", "no metric ppd_inflight_total"),
        ('ppd_inflight{role="decode"} > 0', "ppd_inflight has no label role"),
        ('ppd_shadow_verdict{verdict="blue"} == 1', "ppd_shadow_verdict has no verdict blue"),
        ("sum by (engine, route) (ppd_inflight) > 0", "no label route"),
    ],
)
def test_a_name_that_does_not_exist_is_noticed(expression, mistake):
    text = f"  - alert: A\n    expr: >\n      {expression}\n    annotations: {{summary: x}}\n"
    assert mistakes(text) == [f"A: {mistake}"]


def test_a_label_that_a_summary_cannot_show_is_noticed():
    text = '  - alert: A\n    expr: ppd_inflight > 1\n    annotations: {summary: "{{ $labels.scope }}"}\n'
    assert mistakes(text) == ["A: no label scope"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("command", [["check", "rules", str(RULES)], ["test", "rules", "alerts_test.yml"]])
def test_the_rules_do_what_they_say(command):
    done = subprocess.run(["promtool", *command], cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
