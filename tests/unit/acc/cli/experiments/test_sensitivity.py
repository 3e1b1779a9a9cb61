import pytest
from tests.support.acc.commands import lines_of, run_line
from tests.support.acc.engines import engine_config

from ppd_acc.cli.experiments.sensitivity import classify
from ppd_acc.experiments.perturbations import perturb
from ppd_acc.outcome import Exit, Mistake, Trouble
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault

CHAT = "/v1/chat/completions"


async def judged(baseline, target, line="--perturbations 6 --max-tokens 16"):
    return await run_line(
        "sensitivity", f"--baseline {baseline.url} --target {target.url} --prompt 'Tell a story.' {line}"
    )


async def test_engines_that_agree_on_every_change_are_robust():
    async with running_engine(engine_config()) as one, running_engine(engine_config()) as other:
        result = await judged(one, other)
    assert (result.exit, result.data["classification"]) == (Exit.PASS, "robust")
    assert result.data["counts"]["equal"] == 6
    assert set(result.data["by_kind"]) == {"whitespace", "case", "punctuation", "politeness", "order", "slip"}


async def test_a_target_with_other_weights_differs_systematically():
    async with running_engine(engine_config()) as one, running_engine(engine_config(engine_noise_nats=6.0)) as other:
        result = await judged(one, other, "--perturbations 12 --max-tokens 32")
    assert (result.exit, result.data["classification"]) == (Exit.DIFFERENT, "systematic")
    assert result.data["rates"]["real"]["rate"] == 1.0
    assert result.data["against_noise"]["p"] < 0.05
    assert any("systematic" in line for line in lines_of(result))


async def test_one_difference_among_equal_answers_is_mixed():
    async with running_engine(engine_config()) as one, running_engine(engine_config()) as other:
        other.faults.add(Fault(kind="corrupt", path=CHAT, nth=3))
        result = await judged(one, other)
    assert (result.exit, result.data["classification"]) == (Exit.DIFFERENT, "mixed")
    assert result.data["counts"]["real"] == 1


async def test_without_a_noise_floor_a_difference_is_inconclusive():
    async with running_engine(engine_config()) as one, running_engine(engine_config(engine_noise_nats=6.0)) as other:
        result = await judged(one, other, "--noise-floor 0")
    assert (result.exit, result.data["classification"]) == (Exit.INCONCLUSIVE, "unclear")


async def test_a_prompt_that_fails_makes_the_result_partial():
    async with running_engine(engine_config()) as one, running_engine(engine_config()) as other:
        other.faults.add(Fault(kind="status", path=CHAT, nth=2))
        result = await judged(one, other, "--retries 0")
    assert result.exit == Exit.INFRASTRUCTURE
    assert any("1 prompt could not be compared" in note for note in result.notes)


async def test_a_target_that_cannot_be_reached_is_trouble():
    async with running_engine(engine_config()) as one:
        with pytest.raises(Trouble, match="--target"):
            await run_line(
                "sensitivity",
                f"--baseline {one.url} --target http://127.0.0.1:9 --prompt a --retries 0 --perturbations 2",
            )


async def test_an_empty_prompt_is_a_mistake():
    with pytest.raises(Mistake, match="--prompt is empty"):
        await run_line("sensitivity", "--baseline http://a --target http://b --prompt ' '")


@pytest.mark.parametrize(
    ("counts", "original", "expected"),
    [
        ({"equal": 5}, False, ("robust", Exit.PASS)),
        ({"tie": 5}, False, ("robust", Exit.PASS)),
        ({"equal": 5}, True, ("only the prompt as it is", Exit.DIFFERENT)),
        ({"real": 4, "error": 1}, False, ("systematic", Exit.DIFFERENT)),
        ({"real": 4, "tie": 1}, False, ("mixed", Exit.DIFFERENT)),
        ({"equal": 4, "unclassified": 1}, False, ("unclear", Exit.INCONCLUSIVE)),
        ({"error": 5}, False, ("unclear", Exit.INCONCLUSIVE)),
    ],
)
def test_what_the_counts_come_to(counts, original, expected):
    none = dict.fromkeys(("equal", "tie", "real", "unclassified", "error"), 0)
    assert classify(none | counts, is_original_real=original) == expected


def test_changes_are_distinct_repeatable_and_never_the_prompt_itself():
    prompt = "Please name two rivers. Say which is longer, and why."
    found = perturb(prompt, 40, 7)
    texts = [each.text for each in found]
    assert len(set(texts)) == 40
    assert prompt not in texts
    assert found == perturb(prompt, 40, 7)
    assert found != perturb(prompt, 40, 8)
    assert len({each.kind for each in found[:6]}) == 6


@pytest.mark.parametrize("prompt", ["a", "1", "??", "  x  "])
def test_a_prompt_with_few_changes_gives_what_there_is(prompt):
    found = perturb(prompt, 1000, 1)
    assert 4 <= len(found) < 1000
    assert all(each.text.strip() for each in found)
