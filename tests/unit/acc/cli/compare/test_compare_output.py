"""compare-output: where two answers part, in tokens, and whether that is a tie or a fault."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.engines import chat_answer, scored_prompt, scripted_engine

from ppd_acc.outcome import Exit, Mistake, Trouble

TEXT = "incomprehensibilities notwithstanding"
"""Two words of several tokens each: a position counted in words is another one than in tokens."""
PROMPT = (1, 2, 3)
AT = 7
NOISE_NATS = 0.05


def tops_of(tokens: Sequence[int], other: int, gap: float) -> list[dict[int, float]]:
    """Certain everywhere but at `AT`, where `other` is `gap` less likely."""
    return [
        {token: -0.4, other: -0.4 - gap} if place == AT else {token: -0.01, token + 500: -6.0}
        for place, token in enumerate(tokens)
    ]


def engine_of(tokens: Sequence[int], other: int, gap: float) -> Any:
    """Answers with these tokens; its prefill sees the second likeliest token NOISE_NATS off everywhere."""
    tops = tops_of(tokens, other, gap)

    def answering(body: Mapping[str, Any]) -> Mapping[str, Any]:
        if "prompt_logprobs" not in body:
            return chat_answer(tokens, tops, text=TEXT, prompt=PROMPT)
        moved = {
            len(PROMPT) + place: {
                token: number - NOISE_NATS * (rank == 1) for rank, (token, number) in enumerate(top.items())
            }
            for place, top in enumerate(tops)
        }
        return scored_prompt(body["prompt"], moved)

    return answering


async def compared(gap: float, *arguments: str) -> Any:
    """The answers part at token 7; each engine prefers its token by `gap`."""
    baseline = list(range(10, 22))
    target = [*baseline[:AT], 99, *range(40, 44)]
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(scripted_engine(engine_of(baseline, 99, gap)))
        other = await stack.enter_async_context(scripted_engine(engine_of(target, baseline[AT], gap)))
        return await run_command(
            "compare-output", "--baseline", one, "--target", other, "--prompt", "hello", *arguments
        )


async def test_a_confident_other_token_is_real_and_at_its_token_position():
    result = await compared(3.0)
    sample = result.data["sample"]
    assert (result.exit, sample["status"]) == (Exit.DIFFERENT, "real")
    assert sample["flip"]["position"] == 7
    assert (sample["flip"]["baseline_token"], sample["flip"]["target_token"]) == (17, 99)
    assert sample["flip"]["shift"] == pytest.approx(6.0)


async def test_an_other_token_within_the_noise_is_a_tie():
    result = await compared(0.02)
    assert (result.exit, result.data["sample"]["status"]) == (Exit.PASS, "tie")
    assert result.data["sample"]["flip"]["position"] == 7
    assert result.data["noise"]["largest_shift"] == pytest.approx(NOISE_NATS)


async def test_a_margin_of_three_nats_on_one_side_is_enough_to_be_real():
    result = await compared(1.5)
    assert result.data["sample"]["status"] == "real"


async def test_without_a_noise_floor_nothing_is_called_a_tie_or_a_fault():
    result = await compared(3.0, "--noise-floor", "0")
    assert (result.exit, result.data["sample"]["status"]) == (Exit.INCONCLUSIVE, "unclassified")


async def test_texts_given_by_hand_are_compared_in_words():
    same = await run_command("compare-output", "--baseline-text", "a b c", "--target-text", "a b c")
    other = await run_command("compare-output", "--baseline-text", "a b c", "--target-text", "a x c")
    assert (same.exit, other.exit) == (Exit.PASS, Exit.DIFFERENT)
    assert (other.data["sample"]["unit"], other.data["sample"]["flip"]["position"]) == ("words", 1)


async def test_texts_that_differ_in_white_space_only_are_different():
    result = await run_command("compare-output", "--baseline-text", "a b", "--target-text", "a  b")
    assert result.exit == Exit.DIFFERENT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prompt", "x"), "--baseline is missing"),
        (("--baseline", "http://a", "--target", "http://b"), "--prompt is missing"),
        (("--baseline", "engine:8000", "--target", "http://b", "--prompt", "x"), "--baseline is 'engine:8000'"),
        (("--baseline-text", "x"), "only one text is given"),
        (("--baseline-file", "missing.txt", "--target-text", "x"), "--baseline-file missing.txt"),
    ],
)
async def test_a_mistake_names_the_flag(arguments, message):
    with pytest.raises(Mistake, match=message):
        await run_command("compare-output", *arguments)


async def test_an_engine_that_cannot_be_reached_is_no_difference():
    async with scripted_engine(engine_of([1, 2], 9, 1.0)) as url:
        with pytest.raises(Trouble, match="cannot be reached"):
            await run_command(
                "compare-output", "--baseline", url, "--target", "http://127.0.0.1:1", "--prompt", "x",
                "--retries", "0", "--noise-floor", "0",
            )  # fmt: skip
