"""aggregate: several reports together, with an interval that knows repeated samples."""

import math

import pytest
from scipy import stats
from tests.support.acc.commands import run_command
from tests.support.acc.reports import divergent, sample, write

from ppd_acc.outcome import Exit, Trouble
from ppd_accuracy.statistics.intervals import wilson


async def aggregate(tmp_path, *reports):
    paths = [write(tmp_path / f"{number}.json", samples) for number, samples in enumerate(reports)]
    return await run_command("aggregate", "--reports", *paths)


async def test_samples_are_always_sometimes_or_never_divergent(tmp_path):
    result = await aggregate(tmp_path, divergent({0, 1}, 10), divergent({0}, 10), divergent({0, 2}, 10))
    assert result.exit == Exit.PASS
    assert (result.data["always"], result.data["flaky"], result.data["never"]) == (1, 2, 7)
    assert result.data["always_ids"] == ["0"]
    assert result.data["rate"] == pytest.approx(5 / 30)


async def test_runs_of_one_sample_are_not_counted_as_independent(tmp_path):
    """Ten times the same report tells no more about the rate than once."""
    once = await aggregate(tmp_path, divergent(range(5), 50))
    often = await aggregate(tmp_path, *[divergent(range(5), 50)] * 10)
    low, high = wilson(5, 50, 0.95)
    assert once.data["interval"] == {"low": low, "high": high}
    half = stats.t.ppf(0.975, 49) * math.sqrt(0.1 * 0.9 * 50 / 49 / 50)
    assert often.data["interval"]["high"] == pytest.approx(0.1 + half)


async def test_reports_of_different_samples_are_put_together(tmp_path):
    result = await aggregate(tmp_path, divergent(range(5), 50), divergent((), 50, prefix="x"))
    low, high = wilson(5, 100, 0.95)
    assert result.data["interval"] == {"low": low, "high": high}


async def test_the_median_first_divergence_counts_equal_answers_up_to_their_length(tmp_path):
    """Differences at token 3; four of six reach token 3 and diverge there, two ended equal after 5."""
    result = await aggregate(tmp_path, divergent(range(4), 6))
    assert result.data["first_divergence"]["tokens"]["median"] == 3
    assert "words" not in result.data["first_divergence"]


async def test_error_rows_are_counted_and_left_out(tmp_path):
    result = await aggregate(tmp_path, [sample("0"), sample("1", "error")])
    assert (result.data["runs"], result.data["reports"][0]["errors"]) == (1, 1)
    with pytest.raises(Trouble, match="none of the samples"):
        await aggregate(tmp_path, [sample("1", "error")])
