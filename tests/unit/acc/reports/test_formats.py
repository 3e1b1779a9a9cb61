"""CSV, JUnit, Markdown and Prometheus: each is read back by a parser of its own, whatever the texts are."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ppd_acc.data.report import EngineInfo, Flip, Noise, Report, Sample, Side
from ppd_acc.data.totals import totals_of
from ppd_acc.reports.formats import COLUMNS, FORMATS, MOST_IN_MARKDOWN

NASTY = 'a"b,c\n</failure>]]>&<img onerror=x>|`code`|\x00\x1b[31m @team ``x`` é\U0001f600'


def sample(status, text=NASTY, sample_id=NASTY):
    flip = Flip(position=7, baseline_margin=3.0, target_margin=1.0, shift=4.0) if status in ("tie", "real") else None
    if status == "unclassified":
        flip = Flip(position=2)
    error = {"error": "broke off", "error_reason": "broken", "failed": "target"} if status == "error" else {}
    sides = {"baseline": Side(text=text, total_ms=1500.0), "target": Side(text=text, finish_reason="stop")}
    return Sample(sample_id=sample_id, status=status, prompt=text, flip=flip, **sides, **error)


def told(name, samples, *, url='http://a\\b"c\nd', gate="fail"):
    report = Report(
        baseline=EngineInfo(url=url),
        target=EngineInfo(url="http://t"),
        noise=Noise(answers=3, flips=1, tokens=9, largest_shift=0.25),
        totals=totals_of([each.status for each in samples], 0.95),
        gate={"outcome": gate, "reason": "because | of <this>"},
        created_at=1_800_000_000.0,
    )
    return "".join(FORMATS[name](report, samples))


ALL = [sample(status, sample_id=f"{status} {NASTY}") for status in ("equal", "tie", "real", "unclassified", "error")]


def test_a_table_is_read_back_cell_by_cell():
    rows = list(csv.DictReader(io.StringIO(told("csv", ALL), newline="")))
    assert [row["status"] for row in rows] == ["equal", "tie", "real", "unclassified", "error"]
    assert rows[2]["prompt"] == NASTY.replace("\0", "\ufffd")
    assert (rows[2]["position"], rows[2]["shift"], rows[0]["position"]) == ("7", "4.0", "")
    assert set(rows[0]) == set(COLUMNS)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_is_a_formula(start):
    rows = list(csv.DictReader(io.StringIO(told("csv", [sample("equal", start + "1+1")]), newline="")))
    assert rows[0]["baseline_output"] == "'" + start + "1+1"


def test_junit_counts_errors_and_failures_apart_and_is_valid_xml():
    root = ElementTree.fromstring(told("junit", ALL))
    suite = root[0]
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5", "failures": "1", "errors": "1", "skipped": "1",
    }  # fmt: skip
    tags = [[child.tag for child in case] for case in suite]
    assert tags == [[], ["system-out"], ["failure"], ["skipped"], ["error"]]
    assert suite[4][0].get("type") == "broken"
    assert suite[4][0].get("message") == "target: broke off"
    assert "</failure>]]>&<img onerror=x>" in (suite[2][0].text or "")
    assert suite[0].get("time") == "1.500"
    assert suite[0].get("name", "").startswith('equal a"b,c\n</failure>')


def test_a_markdown_row_stays_one_row_whatever_the_text():
    text = told("markdown", ALL)
    rows = [line for line in text.splitlines() if line.startswith(("| `", "| ``"))]
    assert len(rows) == 3
    for row in rows:
        assert len([each for each in row.replace("\\|", "").split("|") if each]) == 5
    assert "because \\| of \\<this\\>" in text
    assert "largest shift 0.25 nats" in text


def test_markdown_shows_the_first_and_says_that_there_are_more():
    text = told("markdown", [sample("real", "x", str(number)) for number in range(MOST_IN_MARKDOWN + 5)])
    assert text.count("| real | ") == MOST_IN_MARKDOWN + 1
    assert "More are in the report." in text


def test_metrics_are_read_back_by_the_client_library():
    families = {family.name: family for family in text_string_to_metric_families(told("prometheus", ALL))}
    by_status = {each.labels["status"]: each.value for each in families["ppd_acc_batch_samples"].samples}
    assert by_status == {"equal": 1, "tie": 1, "real": 1, "unclassified": 1, "error": 1}
    assert families["ppd_acc_batch_samples"].samples[0].labels["baseline"] == 'http://a\\b"c\nd'
    rate = {each.labels["bound"]: each.value for each in families["ppd_acc_batch_divergence_rate"].samples}
    assert rate["observed"] == pytest.approx(0.75)
    gate = {each.labels["outcome"]: each.value for each in families["ppd_acc_batch_gate"].samples}
    assert gate == {"fail": 1, "pass": 0, "inconclusive": 0, "partial": 0}


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_run_of_errors_only_can_be_written(name):
    assert told(name, [sample("error")])
