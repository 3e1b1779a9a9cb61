import re

import pytest
from tests.support.acc.commands import lines_of, run_line
from tests.support.acc.engines import engine_config

from ppd_acc.outcome import Exit, Mistake, Trouble
from ppd_accuracy.statistics.intervals import wilson
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault

CHAT = "/v1/chat/completions"


async def test_an_engine_that_repeats_itself_passes_under_both_schedules():
    async with running_engine(engine_config()) as sim:
        result = await run_line("reproducibility", f"--url {sim.url} --prompt one --prompt two --runs 4 --max-tokens 8")
        asked = sum(each.path == CHAT for each in sim.requests)
    assert result.exit == Exit.PASS
    assert asked == 2 * 2 * 4 + 2 * 12  # both schedules, and the noise floor's twelve answers twice
    sequential, at_once = result.data["figures"]
    assert (sequential["schedule"], at_once["schedule"]) == ("one after the other", "at once")
    for figures in (sequential, at_once):
        assert (figures["answered"], figures["differing"], figures["majority_share"]) == (8, 0, 1.0)
        assert figures["majority_interval"] == wilson(8, 8, 0.95)._asdict()


async def test_a_run_that_differs_by_more_than_the_noise_fails_where_it_was():
    async with running_engine(engine_config()) as sim:
        sim.faults.add(Fault(kind="corrupt", path=CHAT, nth=3))
        result = await run_line("reproducibility", f"--url {sim.url} --prompt one --runs 5 --max-tokens 8")
    sequential, at_once = result.data["figures"]
    assert result.exit == Exit.DIFFERENT
    assert (sequential["differing"], at_once["differing"]) == (1, 0)
    assert sequential["majority_share"] == 0.8
    (prompt,) = sequential["prompts"]
    assert prompt["distinct_answers"] == 2
    assert len(prompt["first_differences"]) == len(prompt["margins"]) == 1
    assert any("80.00 %" in line for line in lines_of(result))


@pytest.mark.parametrize(
    ("threshold", "runs", "expected"),
    [("0.9", 5, Exit.INCONCLUSIVE), ("0.5", 8, Exit.PASS), ("0.99", 6, Exit.DIFFERENT), ("1", 6, Exit.DIFFERENT)],
)
async def test_a_threshold_is_held_against_the_interval(threshold, runs, expected):
    async with running_engine(engine_config()) as sim:
        if expected == Exit.DIFFERENT:
            sim.faults.add(Fault(kind="corrupt", path=CHAT, nth=2), Fault(kind="corrupt", path=CHAT, nth=4))
        result = await run_line(
            "reproducibility", f"--url {sim.url} --prompt one --runs {runs} --threshold {threshold} --max-tokens 4"
        )
    assert result.exit == expected
    if expected == Exit.INCONCLUSIVE:
        assert result.data["verdicts"][0]["more_samples"] > 0


async def test_two_engines_are_held_against_each_other():
    async with running_engine(engine_config()) as one, running_engine(engine_config(engine_noise_nats=3.0)) as other:
        line = f"--baseline {one.url} --target {other.url} --prompt one --runs 3 --max-tokens 8"
        result = await run_line("reproducibility", line)
    assert result.exit == Exit.PASS  # each repeats itself
    assert [each["of"] for each in result.data["verdicts"]][-2:] == [
        "target against baseline, one after the other",
        "target against baseline, at once",
    ]
    assert any("real difference" in note for note in result.notes)  # but they are not the same


async def test_a_target_that_repeats_itself_less_often_fails():
    async with running_engine(engine_config()) as one, running_engine(engine_config()) as other:
        for nth in range(2, 12):
            other.faults.add(Fault(kind="corrupt", path=CHAT, nth=nth, times=1))
        line = f"--baseline {one.url} --target {other.url} --prompt one --runs 24 --max-tokens 4 --noise-floor 0"
        result = await run_line("reproducibility", f"{line} --schedule sequential")
    verdicts = {each["of"]: each for each in result.data["verdicts"]}
    assert result.exit == Exit.DIFFERENT
    assert verdicts["target against baseline, one after the other"]["outcome"] == "fail"
    assert verdicts["target, one after the other"]["outcome"] == "inconclusive"  # without a noise floor


async def test_an_engine_that_does_not_reproduce_itself_is_told_so_first():
    async with running_engine(engine_config()) as sim:
        line = f"reproducibility --url {sim.url} --prompt one --runs 2"
        assert not any("not reproducible" in line for line in lines_of(await run_line(*line.split(" ", 1))))
        sim.faults.add(Fault(kind="corrupt", path=CHAT, probability=0.5))
        result = await run_line(*line.split(" ", 1))
    first = next(lines_of(result))
    assert re.match(r"not reproducible: \d+ of 12 answers came out differently when asked again; its own noise", first)


async def test_runs_that_fail_make_the_result_partial():
    async with running_engine(engine_config()) as sim:
        sim.faults.add(Fault(kind="status", path=CHAT, nth=2))
        result = await run_line("reproducibility", f"--url {sim.url} --prompt one --runs 3 --retries 0")
    assert result.exit == Exit.INFRASTRUCTURE
    assert result.data["figures"][0]["failed"] == 1
    assert any("1 run failed" in note for note in result.notes)


async def test_an_engine_that_never_answers_is_trouble():
    with pytest.raises(Trouble, match="cannot be reached"):
        await run_line("reproducibility", "--url http://127.0.0.1:9 --prompt one --retries 0")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--prompt a", "--url is missing"),
        ("--url http://a --baseline http://b --prompt a", "one or the other"),
        ("--url http://a", "--prompt is missing"),
        ("--url http://a --prompt a --runs 1", "--runs is 1"),
        ("--baseline http://a --prompt a", "--target is missing"),
        ("--url http://a --prompts /none", "--prompts /none"),
    ],
)
async def test_mistakes_name_the_flag(line, told):
    with pytest.raises(Mistake, match=told):
        await run_line("reproducibility", line)
