"""ab-test: the right test for the design, and how it ends."""

import math

import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.reports import divergent, sample, write, write_published

from ppd_acc.data.report import Side
from ppd_acc.outcome import Exit, Mistake, Trouble


async def outcome(tmp_path, first, second, *arguments):
    paths = write(tmp_path / "a.json", first), write(tmp_path / "b.json", second)
    return await run_command("ab-test", "--report-a", paths[0], "--report-b", paths[1], *arguments)


async def test_unpaired_5_and_15_of_100_are_fisher_0_03172_and_fail(tmp_path):
    result = await outcome(tmp_path, divergent(range(5), 100), divergent(range(15), 100), "--unpaired")
    assert (result.exit, result.data["design"], result.data["test"]) == (Exit.DIFFERENT, "unpaired", "fisher")
    assert result.data["p"] == pytest.approx(0.03172, abs=5e-6)
    assert result.data["difference_interval"]["low"] > 0


async def test_nested_5_and_15_of_the_same_100_are_mcnemar_0_0020_and_fail(tmp_path):
    result = await outcome(tmp_path, divergent(range(5), 100), divergent(range(15), 100))
    assert (result.exit, result.data["design"], result.data["test"]) == (Exit.DIFFERENT, "paired", "mcnemar")
    assert result.data["p"] == pytest.approx(2 / 1024)
    assert result.data["discordant"] == {"a_only": 0, "b_only": 10, "both": 5, "neither": 85}


async def test_a_better_b_passes(tmp_path):
    result = await outcome(tmp_path, divergent(range(7), 20), divergent(range(1), 20), "--unpaired")
    assert result.exit == Exit.PASS
    assert result.data["p"] == pytest.approx(0.0436, abs=5e-5)
    assert "better" in result.data["decision"]["reason"]


async def test_disjoint_ids_need_no_flag(tmp_path):
    result = await outcome(tmp_path, divergent(range(5), 100), divergent(range(15), 100, prefix="other "))
    assert (result.data["test"], result.exit) == ("fisher", Exit.DIFFERENT)
    assert result.notes == ()


async def test_the_published_tools_reports_give_the_same_p(tmp_path):
    paths = write_published(tmp_path / "a.json", range(5), 100), write_published(tmp_path / "b.json", range(15), 100)
    line = ("--report-a", paths[0], "--report-b", paths[1])
    assert (await run_command("ab-test", *line, "--unpaired")).data["p"] == pytest.approx(0.03172003908631784)
    assert (await run_command("ab-test", *line)).data["p"] == pytest.approx(2 / 1024)


async def test_what_may_be_chance_is_inconclusive_and_says_how_many_more(tmp_path):
    result = await outcome(tmp_path, divergent({0, 1}, 100), divergent({2, 3, 4, 5, 6}, 100))
    assert result.exit == Exit.INCONCLUSIVE
    assert result.data["p"] == pytest.approx(0.4531, abs=5e-5)
    assert result.data["decision"]["more_samples"] > 100


async def test_another_alpha_is_another_decision(tmp_path):
    reports = divergent(range(5), 100), divergent(range(15), 100)
    assert (await outcome(tmp_path, *reports, "--unpaired", "--alpha", "0.01")).exit == Exit.INCONCLUSIVE


async def test_the_same_report_twice_passes(tmp_path):
    result = await outcome(tmp_path, divergent(range(5), 100), divergent(range(5), 100))
    assert (result.exit, result.data["p"]) == (Exit.PASS, 1.0)


async def test_ties_are_no_divergences_unless_they_are_counted(tmp_path):
    reports = divergent((), 50), divergent(range(10), 50, status="tie")
    assert (await outcome(tmp_path, *reports)).exit == Exit.PASS
    assert (await outcome(tmp_path, *reports, "--count-ties")).exit == Exit.DIFFERENT


async def test_ids_of_one_file_only_and_error_rows_are_listed_and_left_out(tmp_path):
    first = [*divergent({0}, 10), sample("left")]
    second = [*divergent({0}, 9), sample("9", "error"), sample("right", "real")]
    result = await outcome(tmp_path, first, second)
    assert (result.data["only_in_a"], result.data["only_in_b"]) == (("left",), ("right",))
    assert result.data["not_compared"] == ("9",)
    assert result.data["a"]["compared"] == result.data["b"]["compared"] == 9
    assert len(result.notes) == 3


async def test_one_id_with_two_prompts_is_noted(tmp_path):
    result = await outcome(tmp_path, [sample("0")], [sample("0", prompt="another")])
    assert "another prompt" in result.notes[0]


async def test_logprob_differences_are_compared_pair_by_pair(tmp_path):
    """B is worse by 0.1 nats in each of ten samples: 2 of 2^10 sign flips are as far. Holm over what else there is."""
    first = [sample(str(n), mean_delta=0.01 * n, max_delta=0.01 * n) for n in range(10)]
    second = [sample(str(n), mean_delta=0.01 * n + 0.1, max_delta=0.01 * n) for n in range(10)]
    metrics = {each["name"]: each for each in (await outcome(tmp_path, first, second)).data["metrics"]}
    mean = metrics["mean logprob difference"]
    assert mean["difference"] == pytest.approx(0.1)
    assert mean["p"] == pytest.approx(2 / 1024)
    assert mean["p_holm"] == pytest.approx(len(metrics) * 2 / 1024)
    assert metrics["largest logprob difference"]["p"] == 1.0


async def test_words_are_not_compared_as_tokens(tmp_path):
    paths = write_published(tmp_path / "a.json", range(5), 100), write_published(tmp_path / "b.json", range(15), 100)
    assert (await run_command("ab-test", "--report-a", paths[0], "--report-b", paths[1])).data["metrics"] == []


async def test_the_share_of_equal_tokens_is_of_the_longer_answer(tmp_path):
    long = Side(text="a", tokens=[1, 2, 3, 9, 9, 9], finish_reason="stop")
    result = await outcome(tmp_path, [sample("0")], [sample("0", "real", target=long)])
    metrics = {each["name"]: each for each in result.data["metrics"]}
    assert metrics["share of tokens before the first difference"]["difference"] == pytest.approx(3 / 6 - 1)
    assert metrics["length of the target's answer"]["difference"] == 1


async def test_an_open_odds_ratio_is_infinite(tmp_path):
    result = await outcome(tmp_path, divergent((), 50), divergent(range(8), 50))
    assert result.data["odds_ratio"]["value"] == math.inf
    assert result.data["odds_ratio"]["interval"]["low"] > 1


async def test_reports_of_nothing_but_errors_are_trouble(tmp_path):
    broken = [sample(str(number), "error") for number in range(5)]
    for arguments in ((), ("--unpaired",)):
        with pytest.raises(Trouble, match="compared"):
            await outcome(tmp_path, broken, broken, *arguments)


async def test_a_file_that_is_no_report_is_a_mistake(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1, 2]")
    with pytest.raises(Mistake, match="--report-a"):
        await run_command("ab-test", "--report-a", str(path), "--report-b", str(path))
