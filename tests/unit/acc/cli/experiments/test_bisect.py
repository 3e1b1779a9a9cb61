from contextlib import asynccontextmanager

import pytest
from tests.support.acc.commands import lines_of, run_line
from tests.support.acc.engines import engine_config, front

from ppd_acc.experiments.cuts import Cuts
from ppd_acc.experiments.trials import boundaries
from ppd_acc.outcome import Exit, Mistake, Trouble
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault

PROMPT = " ".join(f"word{number}" for number in range(60))


def from_length(length):
    return lambda body, under_way: len(body.get("prompt", ())) >= length


@asynccontextmanager
async def bisecting(is_other, *, refuses=()):
    """Runs a line against a healthy engine, and one that has other weights where `is_other` says so."""
    async with (
        running_engine(engine_config()) as one,
        running_engine(engine_config(engine_noise_nats=8.0)) as other,
        front(one.url, other.url, is_other) as target,
        front(one.url, one.url, is_other, refuses=refuses) as baseline,
    ):

        async def judged(line):
            return await run_line(
                "bisect",
                f"--baseline {baseline} --target {target} --prompt '{PROMPT}' --max-tokens 24 --retries 0 {line}",
            )

        yield judged


async def test_the_length_from_which_answers_diverge_is_found():
    async with bisecting(from_length(300)) as judged:
        result = await judged("--max-length 1000")
    data = result.data
    assert (result.exit, data["found"], data["unit"]) == (Exit.DIFFERENT, "threshold", "tokens")
    assert data["threshold_length"] == pytest.approx(300, rel=0.15)
    assert data["fit"]["low"] <= 300 <= data["fit"]["high"]
    below = [step for step in data["steps"] if step["dose"] < 300]
    assert sum(step["diverged"] for step in below) == 0
    assert all(step["diverged"] == step["runs"] for step in data["steps"] if step["dose"] >= 300)
    assert data["total_iterations"] <= 200
    assert any("beyond that it begins again" in note for note in result.notes)
    assert any(line.startswith("threshold: 50.00 % diverge from") for line in lines_of(result))


async def test_engines_that_agree_never_diverge():
    async with bisecting(from_length(10**9)) as judged:
        result = await judged("--repeats 3")
    assert (result.exit, result.data["found"]) == (Exit.PASS, "never")
    assert result.data["never_diverges"] is True
    assert {step["dose"] for step in result.data["steps"]} >= {1, result.data["prompt_length"]}


async def test_a_target_with_other_weights_always_diverges():
    async with bisecting(from_length(1)) as judged:
        result = await judged("--repeats 3 --min-length 8")
    assert (result.exit, result.data["found"]) == (Exit.DIFFERENT, "always")
    assert result.data["threshold_length"] is None


async def test_nearly_everything_diverging_at_every_length_is_always_and_ends_early():
    async with bisecting(lambda body, _: sum(body.get("prompt", [0])) % 12 != 0) as judged:
        result = await judged("--max-length 500 --repeats 12")
    assert (result.exit, result.data["found"]) == (Exit.DIFFERENT, "always")
    assert sum(step["diverged"] for step in result.data["steps"]) < result.data["total_iterations"] == 60


async def test_a_fault_at_middle_lengths_is_no_threshold():
    async with bisecting(lambda body, _: 20 <= len(body.get("prompt", ())) <= 200) as judged:
        result = await judged("--max-length 1000 --repeats 8")
    assert (result.exit, result.data["found"]) == (Exit.INCONCLUSIVE, "not monotone")
    assert any("--over blocks" in note for note in result.notes)


async def test_a_fault_at_block_boundaries_is_found_with_its_offset():
    async with bisecting(lambda body, _: len(body.get("prompt", ())) % 16 == 1) as judged:
        result = await judged("--over blocks --block-size 16 --max-length 200 --repeats 4")
    assert (result.exit, result.data["found"]) == (Exit.DIFFERENT, "boundary")
    by_offset = {each["offset"]: each for each in result.data["offsets"]}
    assert by_offset[1]["diverged"] == by_offset[1]["runs"] == 20
    assert by_offset[-1]["diverged"] == by_offset[0]["diverged"] == 0
    assert by_offset[1]["p"] < 0.001
    assert any("offset +1 (20 of 20" in line for line in lines_of(result))


async def test_the_load_from_which_answers_diverge_is_found():
    async with bisecting(lambda body, under_way: isinstance(body["prompt"], list) and under_way >= 6) as judged:
        result = await judged("--over concurrency --max-level 32 --max-length 40 --noise-floor 8")
    assert result.exit == Exit.DIFFERENT
    assert result.data["found"] == "threshold"
    assert 1 < result.data["threshold_length"] < 16
    steps = {step["dose"]: step for step in result.data["steps"]}
    assert steps[1]["diverged"] == 0
    assert steps[32]["diverged"] > 16


async def test_without_a_noise_floor_all_differences_count():
    async with bisecting(from_length(1)) as judged:
        result = await judged("--repeats 3 --noise-floor 0 --min-length 8")
    assert result.data["counts"] == "all differences"
    assert result.data["found"] == "always"
    assert any("noise floor" in note for note in result.notes)


@pytest.mark.parametrize(
    ("refuses", "line", "unit", "reason"),
    [
        (("/tokenize",), "", "tokens", None),
        (("ids",), "--noise-floor 0", "words", "takes no token ids"),
        (("/tokenize", "/v1/completions"), "--noise-floor 0", "words", "takes no token ids"),
        ((), "--endpoint chat", "words", "--endpoint chat"),
    ],
)
async def test_lengths_are_in_words_only_where_ids_are_impossible(refuses, line, unit, reason):
    async with bisecting(from_length(10**9), refuses=refuses) as judged:
        result = await judged(f"--repeats 2 {line}")
    assert (result.exit, result.data["unit"]) == (Exit.PASS, unit)
    assert reason is None or any(reason in note for note in result.notes)


async def test_a_noise_floor_that_cannot_be_measured_is_trouble_with_a_way_out():
    async with running_engine(engine_config()) as sim:
        sim.faults.add(Fault(kind="status", path="/v1/chat"))
        line = f"--baseline {sim.url} --target {sim.url} --prompt '{PROMPT}' --endpoint chat --retries 0"
        with pytest.raises(Trouble, match=r"--baseline: noise floor: .*--noise-floor 0"):
            await run_line("bisect", line)


async def test_failures_leave_the_result_partial_and_many_end_it():
    async with running_engine(engine_config()) as one, running_engine(engine_config()) as other:
        line = f"--baseline {one.url} --target {other.url} --prompt '{PROMPT}' --retries 0 --max-tokens 4"
        other.faults.add(Fault(kind="status", path="/v1/completions", nth=3))
        result = await run_line("bisect", line)
        assert result.exit == Exit.INFRASTRUCTURE
        assert any("1 comparison failed" in note for note in result.notes)
        other.faults.add(Fault(kind="status", path="/v1/completions"))
        with pytest.raises(Trouble, match="comparisons failed"):
            await run_line("bisect", line)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "--prompt"),
        ("--prompt a --prompt-file b", "--prompt"),
        ("--prompt ' '", "--prompt is empty"),
        ("--prompt-file /none", "--prompt-file /none"),
    ],
)
async def test_mistakes_name_the_flag(line, told):
    with pytest.raises(Mistake, match=told):
        await run_line("bisect", f"--baseline http://a --target http://b {line}")


async def test_a_range_of_no_lengths_is_a_mistake():
    async with running_engine(engine_config()) as sim:
        line = f"--baseline {sim.url} --target {sim.url} --prompt 'a b c' --noise-floor 0"
        with pytest.raises(Mistake, match="--max-length is 5 and --min-length 5"):
            await run_line("bisect", f"{line} --min-length 5 --max-length 5")
        with pytest.raises(Mistake, match="--block-size 16"):
            await run_line("bisect", f"{line} --over blocks --max-length 10")
        with pytest.raises(Mistake, match="--max-level is 1"):
            await run_line("bisect", f"{line} --over concurrency --max-level 1")


async def test_block_boundaries_need_token_ids():
    async with bisecting(from_length(10**9), refuses=("ids",)) as judged:
        with pytest.raises(Mistake, match=r"--over blocks needs .* the baseline takes no token ids"):
            await judged("--over blocks")


def test_cuts_of_one_length_differ_and_the_first_is_the_beginning():
    cuts = Cuts(pieces=list(range(100)), unit="tokens")
    assert cuts.question(5, 0).prompt == [0, 1, 2, 3, 4]
    found = {tuple(cuts.question(150, number).prompt) for number in range(20)}
    assert len(found) == 20
    assert all(len(each) == 150 for each in found)
    same = Cuts(pieces=["a", "b"], unit="words", is_same=True)
    assert [same.question(3, number).prompt for number in range(2)] == ["a b a", "a b a"]


def test_boundaries_stay_within_the_lengths():
    found = list(boundaries(16, 1, 100, 3))
    assert [length for length, _ in found] == [15, 16, 17, 31, 32, 33, 95, 96, 97]
    assert list(boundaries(16, 16, 34, 5)) == [(31, -1), (32, 0), (33, 1)]
    assert list(boundaries(16, 1, 16, 5)) == []
