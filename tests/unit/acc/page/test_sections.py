"""The page's plain sections: what they show, and what they leave out."""

import math

import pytest
from tests.support.acc.page_reports import report, sample

from ppd_acc.data.report import Noise
from ppd_acc.data.totals import totals_in
from ppd_acc.page.sections import cards, header, moment, settings
from ppd_acc.page.verdicts import headline


def shown(**more):
    made = report([sample("a")], **more)
    return settings(made, totals_in(made), [("report", "run.json")])


def test_settings_are_told_down_to_nested_ones():
    page = shown(settings={"sampling": {"temperature": 0.5, "seed": math.nan}, "empty": None})
    assert "sampling.temperature" in page
    assert "no number" in page
    assert "empty" not in page


def test_a_value_that_is_too_long_is_cut():
    page = shown(settings={"template": "x" * 1000})
    assert "x" * 400 + " \u2026" in page
    assert "x" * 401 not in page


def test_a_noise_floor_that_was_not_measured_is_said():
    assert "not measured" in shown(noise=Noise())
    assert "not measured" not in shown()


def test_files_and_engines_are_named():
    page = shown()
    assert "run.json" in page
    assert "http://pd-endpoint:8001" in page


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, None), (-1, None), (1e300, None), (1_790_000_000, "2026-09-21 14:13:20 UTC")]
)
def test_a_moment_that_is_none_is_not_told(seconds, text):
    assert moment(seconds) == text


def test_cards_have_one_for_empty_answers_only_where_there_are_any():
    made = report([sample("a"), sample("b", "real")])
    assert "empty on both sides" not in cards(totals_in(made))
    assert "50.0 %" in cards(totals_in(made))


def test_the_header_escapes_what_it_is_given():
    made = report([sample("a")])
    page = header(made, headline(made, totals_in(made)), "<script>", ["a <b> note"])
    assert "<script>" not in page
    assert "a &lt;b&gt; note" in page
