"""What a report's samples say of themselves."""

import msgspec
from tests.support.acc.reports import failed, parted, report_of_samples, sample

from ppd_acc.data.report import Report, by_id, told_statuses
from ppd_acc.data.totals import totals_of


def test_a_sample_that_failed_was_not_compared():
    assert sample("a").is_compared
    assert not failed("b").is_compared


def test_only_answers_that_differ_are_divergent():
    assert parted("a", "tie", 3, 5).is_divergent
    assert not sample("b").is_divergent
    assert not failed("c").is_divergent


def test_a_report_comes_back_from_its_json_as_it_was():
    made = report_of_samples(sample("a"), parted("b", "real", 3, 5), failed("c"))
    assert msgspec.json.decode(msgspec.json.encode(made), type=Report) == made


def test_empty_answers_are_told_only_where_there_are_any():
    assert "empty" not in told_statuses(totals_of(["equal"]))
    assert "empty" in told_statuses(totals_of(["equal", "empty"]))


def test_samples_are_found_by_their_id():
    assert list(by_id(report_of_samples(sample("a"), sample("b")))) == ["a", "b"]
