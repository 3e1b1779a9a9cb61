"""Counts by status."""

from tests.support.acc.reports import sample

from ppd_acc.data.report import Report
from ppd_acc.data.totals import totals_in, totals_of


def test_errors_and_empty_answers_were_not_compared():
    totals = totals_of(["equal", "equal", "real", "tie", "error", "empty"])
    assert (totals.samples, totals.compared, totals.error, totals.empty) == (6, 4, 1, 1)
    assert (totals.rate, totals.real_rate) == (0.5, 0.25)
    assert totals.rate_interval.low < 0.5 < totals.rate_interval.high


def test_of_nothing_there_is_no_rate():
    assert totals_of([]).rate is None
    assert totals_of(["error"]).real_rate is None


def test_a_report_without_totals_is_counted():
    report = Report(samples=[sample("a"), sample("b", "real")])
    assert totals_in(report).real == 1
    told = totals_of(["equal"])
    assert totals_in(Report(samples=[], totals=told)) is told
