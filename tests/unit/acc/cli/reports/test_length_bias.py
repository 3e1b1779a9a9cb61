"""length-bias: in tokens, with cut answers as such, and how it ends."""

import pytest
from tests.support.acc.commands import lines_of, run_command
from tests.support.acc.reports import sample, write, write_published

from ppd_acc.data.report import Side
from ppd_acc.outcome import Exit, Mistake, Trouble


def answered(name, baseline, target, *, finish=("stop", "stop")):
    """Answers of these many tokens."""
    sides = [
        Side(text="x", tokens=list(range(count)), finish_reason=reason)
        for count, reason in zip((baseline, target), finish, strict=True)
    ]
    return sample(name, "equal" if baseline == target else "real", baseline=sides[0], target=sides[1])


async def bias(tmp_path, samples, *arguments):
    return await run_command("length-bias", "--report", write(tmp_path / "report.json", samples), *arguments)


async def test_systematically_longer_answers_fail(tmp_path):
    result = await bias(tmp_path, [answered(str(n), 20 + n, 23 + n + n % 3) for n in range(20)])
    assert result.exit == Exit.DIFFERENT
    assert result.data["judged_by"] == "student"
    assert result.data["complete"]["mean"] == pytest.approx(3.95)
    assert "significantly longer" in result.data["decision"]["reason"]


async def test_systematically_shorter_answers_fail_too(tmp_path):
    result = await bias(tmp_path, [answered(str(n), 23 + n + n % 3, 20 + n) for n in range(20)])
    assert result.exit == Exit.DIFFERENT
    assert "significantly shorter" in result.data["decision"]["reason"]


async def test_equal_lengths_pass(tmp_path):
    assert (await bias(tmp_path, [answered(str(n), 20, 20) for n in range(20)])).exit == Exit.PASS


async def test_a_few_differences_are_inconclusive_and_say_how_many_more(tmp_path):
    samples = [answered(str(n), 20, 20 + (n == 3) * 4 - (n == 5)) for n in range(20)]
    result = await bias(tmp_path, samples)
    assert result.exit == Exit.INCONCLUSIVE
    assert result.data["decision"]["more_samples"] > 0


async def test_a_limit_asks_for_lengths_that_are_close_enough(tmp_path):
    samples = [answered(str(n), 20, 20 + (n % 2)) for n in range(40)]
    assert (await bias(tmp_path, samples)).exit == Exit.DIFFERENT
    assert (await bias(tmp_path, samples, "--limit", "1")).exit == Exit.PASS
    assert (await bias(tmp_path, samples, "--limit", "0.5")).exit == Exit.INCONCLUSIVE
    assert (await bias(tmp_path, samples, "--limit", "0.1")).exit == Exit.DIFFERENT


async def test_target_answers_that_run_into_the_limit_fail(tmp_path):
    samples = [answered(str(n), 20, 20) for n in range(30)]
    samples += [answered(f"cut {n}", 40, 64, finish=("stop", "length")) for n in range(10)]
    result = await bias(tmp_path, samples)
    assert (result.exit, result.data["judged_by"], result.data["censored"]) == (Exit.DIFFERENT, "gehan score", 10)
    assert {"baseline": "stop", "target": "length", "pairs": 10} in result.data["finish_reasons"]


async def test_answers_all_cut_on_both_sides_show_nothing(tmp_path):
    result = await bias(tmp_path, [answered(str(n), 64, 64, finish=("length", "length")) for n in range(20)])
    assert result.exit == Exit.INCONCLUSIVE
    assert "none shows which is longer" in result.data["decision"]["reason"]


async def test_lengths_in_words_say_so(tmp_path):
    path = write_published(tmp_path / "published.json", range(10), 20)
    result = await run_command("length-bias", "--report", path)
    assert (result.data["unit"], result.exit) == ("words", Exit.DIFFERENT)
    assert "lengths are in words" in result.notes[0]
    shown = "\n".join(lines_of(result))
    assert "words" in shown
    assert "tokens" not in shown


async def test_error_rows_are_left_out_and_told(tmp_path):
    result = await bias(tmp_path, [answered("0", 5, 5), sample("1", "error")])
    assert (result.data["pairs"], result.notes) == (1, ("1 of 2 samples were not compared (error rows)",))


async def test_a_report_of_nothing_is_a_mistake_and_one_of_errors_is_trouble(tmp_path):
    with pytest.raises(Mistake, match="no samples"):
        await bias(tmp_path, [])
    with pytest.raises(Trouble, match="none of its 1 samples"):
        await bias(tmp_path, [sample("1", "error")])


@pytest.mark.parametrize(
    ("lengths", "count", "limit", "expected"),
    [
        ((20, 21), 20, "10", Exit.PASS),
        ((20, 30), 20, "10", Exit.PASS),
        ((20, 31), 20, "10", Exit.DIFFERENT),
        ((40, 20), 20, "10", Exit.DIFFERENT),
        ((20, 40), 20, "10", Exit.DIFFERENT),
        ((20, 40), 6, "10", Exit.DIFFERENT),  # 2 / 2**6 = 0.031
        ((20, 21), 5, "10", Exit.INCONCLUSIVE),  # 2 / 2**5 = 0.063
        ((20, 40), 1, "10", Exit.INCONCLUSIVE),
    ],
)
async def test_a_limit_holds_where_all_differences_are_the_same(tmp_path, lengths, count, limit, expected):
    result = await bias(tmp_path, [answered(str(n), *lengths) for n in range(count)], "--limit", limit)
    assert result.exit == expected
    if expected == Exit.INCONCLUSIVE:
        assert result.data["decision"]["more_samples"] == 6 - count
