"""regression: which samples, and whether they are more than chance."""

import pytest
from tests.support.acc.commands import lines_of, run_command
from tests.support.acc.reports import divergent, sample, write, write_published

from ppd_acc.outcome import Exit, Mistake, Trouble


async def regression(tmp_path, before, now, *arguments):
    paths = write(tmp_path / "before.json", before), write(tmp_path / "now.json", now)
    return await run_command("regression", "--baseline", paths[0], "--current", paths[1], *arguments)


async def test_five_regressions_and_two_fixes_are_mcnemar_0_4531_and_inconclusive(tmp_path):
    result = await regression(tmp_path, divergent({0, 1, 9}, 100), divergent({2, 3, 4, 5, 6, 9}, 100))
    assert result.exit == Exit.INCONCLUSIVE
    assert result.data["p"] == pytest.approx(0.4531, abs=5e-5)
    assert [each["sample_id"] for each in result.data["regressions"]] == ["2", "3", "4", "5", "6"]
    assert [each["sample_id"] for each in result.data["fixes"]] == ["0", "1"]
    assert (result.data["still_divergent"], result.data["still_equal"]) == (("9",), 92)


async def test_ten_regressions_fail_and_ten_fixes_pass(tmp_path):
    assert (await regression(tmp_path, divergent((), 100), divergent(range(10), 100))).exit == Exit.DIFFERENT
    assert (await regression(tmp_path, divergent(range(10), 100), divergent((), 100))).exit == Exit.PASS


async def test_nothing_changed_passes(tmp_path):
    result = await regression(tmp_path, divergent({3}, 10), divergent({3}, 10))
    assert (result.exit, result.data["regressions"]) == (Exit.PASS, [])


async def test_the_published_tools_reports_are_read(tmp_path):
    before, now = write_published(tmp_path / "a", range(5), 100), write_published(tmp_path / "b", range(15), 100)
    result = await run_command("regression", "--baseline", before, "--current", now)
    assert (result.exit, len(result.data["regressions"])) == (Exit.DIFFERENT, 10)
    assert {each["unit"] for each in result.data["regressions"]} == {"words"}


async def test_a_tie_that_became_real_is_a_regression(tmp_path):
    ties, reals = divergent(range(8), 20, status="tie"), divergent(range(8), 20)
    result = await regression(tmp_path, ties, reals)
    assert result.exit == Exit.DIFFERENT
    assert result.data["regressions"][0]["before"]["status"] == "tie"


async def test_people_see_which_samples_and_where(tmp_path):
    result = await regression(tmp_path, divergent((), 30), divergent({17}, 30))
    shown = "\n".join(lines_of(result))
    assert "1 worse and 0 better of 30 pairs" in shown
    assert "none -> token 3" in shown
    assert "prompt 17" in shown


async def test_no_common_id_is_a_mistake(tmp_path):
    with pytest.raises(Mistake, match="no sample_id in common: 5 ids only in the first, 5 only in the second"):
        await regression(tmp_path, divergent((), 5), divergent((), 5, prefix="x"))


async def test_common_ids_without_a_comparison_are_trouble(tmp_path):
    with pytest.raises(Trouble, match="none of the 1 shared samples"):
        await regression(tmp_path, [sample("0", "error")], [sample("0")])


async def test_ids_of_one_file_only_are_listed(tmp_path):
    result = await regression(tmp_path, divergent((), 25), divergent((), 24))
    assert result.data["only_in_baseline"] == ("24",)
    assert "only in the baseline report: 24" in result.notes[0]
