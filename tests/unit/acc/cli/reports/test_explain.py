"""explain and summary: what a report's numbers say."""

import shlex

import pytest
from tests.support.acc.commands import lines_of, run_command
from tests.support.acc.reports import equal, failed, parted, published, report_of_samples, side, written

from ppd_acc.cli import main as program
from ppd_acc.data.report import LONGER_THAN_FLOOR, Forced, Noise
from ppd_acc.outcome import Exit, Mistake
from ppd_acc.reports.explaining import advice
from ppd_accuracy.statistics.intervals import wilson


async def explained(tmp_path, sample, *others, arguments=(), **fields):
    path = written(tmp_path, sample, *others, **fields)
    result = await run_command("explain", "--report", path, "--sample", sample.sample_id, *arguments)
    assert result.exit == Exit.PASS
    return result.data


def told_by(data):
    return "\n".join(data["story"])


async def test_margins_stand_beside_the_noise_floor(tmp_path):
    data = await explained(tmp_path, parted("x", position=7, shift=3.0))
    told = told_by(data)
    assert "token 7 is the first that differs (baseline 7, target 1000), after 7 equal ones" in told
    assert "the baseline preferred its token by 1.5 nats, the target its own by 1.5 nats" in told
    assert "400 healthy tokens moved by 0.05 nats at most; this one by 3 nats, 60 times that" in told
    assert "probability of at most 0.001" in told


async def test_the_context_is_five_tokens_on_either_side(tmp_path):
    data = await explained(tmp_path, parted("x", position=7, length=30))
    assert [place["position"] for place in data["context"]] == list(range(2, 13))
    at = data["context"][5]
    assert (at["baseline"], at["target"], at["delta"]) == (7, 1000, None)
    assert data["context"][4]["delta"] == 0.0
    short = await explained(tmp_path, parted("x", position=1, length=3), arguments=("--context-window", "1"))
    assert [place["position"] for place in short["context"]] == [0, 1, 2]


async def test_an_answer_that_ended_has_no_token_there(tmp_path):
    sample = parted("x", position=4, length=10, target=side(range(4)))
    data = await explained(tmp_path, sample)
    assert [place["target"] for place in data["context"][-4:]] == [None] * 4


async def test_without_a_floor_it_says_how_to_get_one(tmp_path):
    data = await explained(tmp_path, parted("x", "unclassified"), noise=Noise())
    assert "noise floor: not measured" in told_by(data)
    first = data["advice"][0]
    assert first["why"] == "no noise floor: measure it"
    words = shlex.split(first["command"])
    assert words[:2] == ["ppd-acc", "compare-output"]
    assert words[words.index("--prompt") + 1] == "prompt x"


async def test_a_bound_asks_for_more_logprobs(tmp_path):
    sample = parted("x", "unclassified")
    assert sample.flip is not None
    sample.flip.is_bound = True
    data = await explained(tmp_path, sample)
    assert "at least 3 nats" in told_by(data)
    assert "--top-k 20" in data["advice"][0]["command"]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"position": 0, "max_delta": None, "max_delta_at": None}, "diagnose"),
        ({"max_delta": 0.5}, "compare-logprobs"),
        ({"max_delta": 0.01}, "reproducibility"),
    ],
)
async def test_what_to_try_next_follows_from_the_figures(tmp_path, fields, word):
    data = await explained(tmp_path, parted("x", **fields))
    assert any(word in (each["command"] or "") for each in data["advice"])


async def test_longer_prompts_of_faulty_samples_are_noticed(tmp_path):
    bad = [parted(f"bad{number}", prompt_tokens=900 + number) for number in range(4)]
    good = [equal(f"good{number}", prompt_tokens=10 + number) for number in range(8)]
    data = await explained(tmp_path, *bad, *good)
    (found,) = (each for each in data["advice"] if "longer prompts" in each["why"])
    assert "a median of 901.5 tokens against 13.5; 0 of 8 sound ones are longer" in found["why"]
    assert "bisect" in found["command"]


async def test_growing_differences_are_noticed(tmp_path):
    sample = parted(
        "x", position=40, length=45, compared_tokens=40, max_delta=0.2,
        baseline=side(range(45), 0.0, logprobs=[-1.0] * 45),
        target=side([*range(40), *range(1000, 1005)], logprobs=[-1.001] * 30 + [-1.2] * 15),
    )  # fmt: skip
    found = advice(sample, report_of_samples(sample))
    assert any("differences grew" in each.why for each in found)


async def test_a_tie_needs_nothing_done(tmp_path):
    data = await explained(tmp_path, parted("x", "tie", shift=0.02))
    assert [each["why"].partition(":")[0] for each in data["advice"]] == ["nothing"]


async def test_an_equal_answer_is_explained_around_its_largest_difference(tmp_path):
    sample = equal("x", 20, max_delta=0.01, mean_delta=0.001, max_delta_at=15)
    data = await explained(tmp_path, sample)
    assert data["context"][0]["position"] == 10
    assert data["advice"] == []


async def test_forced_figures_and_annotations_are_told(tmp_path):
    forced = Forced(tokens=10, mean_delta=0.1, max_delta=2.0, max_delta_at=8, likelihood_delta=-1.0, token_accuracy=0.9)
    sample = parted("x", forced=forced)
    path = written(tmp_path, sample)
    await run_command("annotate", "--report", path, "--sample", "x", "--note", "seen", "--label", "kv")
    result = await run_command("explain", "--report", path, "--sample", "x")
    assert "2 nats at most, at token 8" in told_by(result.data)
    assert result.data["annotation"]["note"] == "seen"


async def test_an_error_says_which_engine_failed(tmp_path):
    data = await explained(tmp_path, failed("x"))
    assert "target failed (status_500)" in told_by(data)
    assert data["advice"][0]["command"] == "ppd-acc healthcheck http://t:2"


async def test_words_are_called_words(tmp_path):
    row = {"sample_id": 5, "prompt": "p", "baseline_output": "x y", "target_output": "x z", "first_divergence_index": 1}
    result = await run_command("explain", "--report", published(tmp_path, row), "--sample", "5")
    assert "word 1 is the first that differs (baseline 'y', target 'z')" in told_by(result.data)
    assert "words, not tokens" in result.data["advice"][0]["why"]


async def test_an_unknown_id_is_a_mistake_with_close_ones(tmp_path):
    path = written(tmp_path, parted("sample-17"), equal("other"))
    with pytest.raises(Mistake, match="did you mean sample-17"):
        await run_command("explain", "--report", path, "--sample", "sample-71")


async def test_an_engine_that_names_no_tokens_is_a_note(tmp_path):
    path = written(tmp_path, parted("x"))
    result = await run_command(
        "explain", "--report", path, "--sample", "x", "--url", "http://127.0.0.1:9", "--retries", "0"
    )
    assert "token ids stay without texts" in result.notes[0]


SAMPLES = (equal("a"), equal("b"), parted("c", "real", position=4), parted("d", "tie", position=6), failed("e"))


async def test_a_summary_counts_with_wilson_intervals(tmp_path):
    data = (await run_command("summary", written(tmp_path, *SAMPLES))).data
    assert (data["samples"], data["compared"], data["error"]) == (5, 4, 1)
    assert data["rate"] == 0.5
    assert (data["rate_low"], data["rate_high"]) == tuple(wilson(2, 4, 0.95))
    assert data["real_rate"] == 0.25
    assert data["prefix_share"] == (10 + 10 + 4 + 6) / 40
    assert data["first_difference_median"] == 5
    assert data["error_reasons"] == {"status_500": 1}


@pytest.mark.parametrize("form", ["oneline", "kv", "table", "json"])
def test_every_format_is_printed_whole(tmp_path, capsys, form):
    assert program.main(["summary", written(tmp_path, *SAMPLES), "--format", form]) == 0
    out = capsys.readouterr().out
    assert "50" in out or "0.5" in out
    assert (len(out.splitlines()) == 1) is (form == "oneline")


async def test_a_table_says_what_its_numbers_are(tmp_path):
    told = parted("c", "real", position=4, max_delta=0.12345678901234567)
    shown = "\n".join(lines_of(await run_command("summary", written(tmp_path, told), "--format", "table")))
    assert "largest logprob difference before the first different token" in shown
    assert "0.1235 nats" in shown
    assert "0.1234567" not in shown


def test_kv_lines_are_what_a_shell_reads(tmp_path, capsys):
    program.main(["summary", "--report", written(tmp_path, *SAMPLES), "--format", "kv"])
    lines = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["samples"] == "5"
    assert lines["imported_from"] == ""
    assert lines["error_reasons"] == "status_500:1"


async def test_a_report_of_nothing_has_no_rates(tmp_path):
    data = (await run_command("summary", written(tmp_path))).data
    assert (data["samples"], data["rate"], data["prefix_share"]) == (0, None, None)


async def test_equal_tokens_with_broken_numbers_say_what_is_wrong(tmp_path):
    sample = equal("x")
    sample.status, sample.not_numbers = "real", 2
    told = told_by(await explained(tmp_path, sample))
    assert "the tokens are equal, but 2 logprobs are NaN or infinite" in told


async def test_a_prompt_longer_than_the_floor_asks_for_a_floor_of_its_own(tmp_path):
    sample = parted("x", "unclassified")
    sample.tags = [LONGER_THAN_FLOOR]
    data = await explained(tmp_path, sample)
    assert data["advice"][0]["why"].startswith("the noise floor was measured on shorter prompts only")
    assert "--noise-floor 20" in data["advice"][0]["command"]


async def test_the_part_of_the_floor_that_judged_stands_beside_the_margins(tmp_path):
    sample = parted("x", shift=3.0)
    sample.flip.floor_tokens, sample.flip.floor_shift = 100, 0.5
    told = told_by(await explained(tmp_path, sample))
    assert "100 healthy tokens in prompts as long moved by 0.5 nats at most; this one by 3 nats, 6 times that" in told


@pytest.mark.parametrize(("max_delta", "is_baselines"), [(0.02, True), (2.0, False)])
async def test_a_target_that_the_baselines_own_prefill_backs_makes_the_baseline_odd(tmp_path, max_delta, is_baselines):
    forced = Forced(
        tokens=10, mean_delta=0.01, max_delta=max_delta, max_delta_at=8, likelihood_delta=0.0, token_accuracy=1.0
    )
    data = await explained(tmp_path, parted("x", forced=forced))
    assert ("the odd answer is the baseline's own" in data["advice"][0]["why"]) == is_baselines
    if is_baselines:
        assert data["advice"][0]["command"] == "ppd-acc reproducibility --url http://b:1"
