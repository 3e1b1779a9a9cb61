"""fingerprint: digests that tell models apart, and a judgement that near ties do not fool."""

from typing import Any

import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.engines import chat_answer, scored_prompt, scripted_engine

from ppd_acc.ask.answers import Answer
from ppd_acc.cli.experiments.fingerprint import PROBES, logprobs_digest, tokens_digest
from ppd_acc.outcome import Exit, Mistake
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.model.model import ModelConfig


def sim(**model: Any) -> EngineConfig:
    return EngineConfig(role="aggregated", model=ModelConfig(**{"prefill_noise_nats": 0.02, **model}))


def answer(tokens, logprobs=()):
    return Answer(text="", tokens=list(tokens), unit="tokens", logprobs=list(logprobs))


async def judged(*arguments: str, **model: Any) -> Any:
    async with running_engine(sim()) as one, running_engine(sim(**model)) as other:
        return await run_command("fingerprint", "--baseline", one.url, "--target", other.url, *arguments)


async def test_a_baseline_alone_is_described():
    async with running_engine(sim()) as one:
        first = await run_command("fingerprint", "--baseline", one.url)
        again = await run_command("fingerprint", "--baseline", one.url)
    assert (first.exit, first.data) == (Exit.PASS, again.data)
    assert len(first.data["baseline"]["probes"]) == len(PROBES)


async def test_the_same_model_is_the_same():
    result = await judged()
    assert (result.exit, result.data["is_same_digest"]) == (Exit.PASS, True)
    assert result.data["baseline"]["logprobs_digest"] == result.data["target"]["logprobs_digest"]


async def test_another_model_is_different_and_both_digests_are_told():
    result = await judged(seed=1)
    assert result.exit == Exit.DIFFERENT
    assert result.data["baseline"]["tokens_digest"] != result.data["target"]["tokens_digest"]


async def test_lost_precision_is_different_though_no_token_is():
    result = await judged("--max-tokens", "4", engine_noise_nats=0.08, near_tie_share=0.0)
    assert result.data["verdict"]["counts"]["real"] == 0
    assert result.exit == Exit.DIFFERENT
    assert "lost precision" in result.data["reasons"][0]


def engine_with_first_token(token, other, gap):
    """Prefers `token` to `other` by `gap` nats; its own prefill sees that gap 0.01 nats smaller."""

    def answering(body):
        if "prompt_logprobs" in body:
            return scored_prompt(body["prompt"], {3: {token: -0.5, other: -0.5 - gap + 0.01}, 4: {9: -0.1, 8: -3.0}})
        return chat_answer([token, 9], [{token: -0.5, other: -0.5 - gap}, {9: -0.1, 8: -3.0}], text="a")

    return answering


async def two_scripted(gap, *arguments):
    async with (
        scripted_engine(engine_with_first_token(5, 6, gap)) as one,
        scripted_engine(engine_with_first_token(6, 5, gap)) as other,
    ):
        return await run_command("fingerprint", "--baseline", one, "--target", other, *arguments)


async def test_near_ties_change_the_digest_and_not_the_verdict():
    result = await two_scripted(0.004)
    assert result.data["verdict"]["counts"]["tie"] == len(PROBES)
    assert (result.data["is_same_digest"], result.exit) == (False, Exit.PASS)
    assert any("near ties" in note for note in result.notes)


async def test_confident_other_tokens_are_different():
    assert (await two_scripted(2.0)).exit == Exit.DIFFERENT


async def test_without_a_noise_floor_differences_are_unclassified():
    assert (await two_scripted(2.0, "--noise-floor", "0")).exit == Exit.INCONCLUSIVE


def test_the_digest_keeps_answers_apart():
    joined = [answer([1, 2]), answer([3])], [answer([1]), answer([2, 3])], [answer([12]), answer([3])]
    assert len({tokens_digest(each) for each in joined}) == 3


def test_the_logprobs_digest_is_of_rounded_numbers():
    assert logprobs_digest([answer([1], [-0.101])]) == logprobs_digest([answer([1], [-0.099])])
    assert logprobs_digest([answer([1], [-0.11])]) != logprobs_digest([answer([1], [-0.12])])
    assert logprobs_digest([answer([1], [None])]) is not None
    assert logprobs_digest([answer([1])]) is None


async def test_a_baseline_is_needed():
    with pytest.raises(Mistake, match="--baseline is missing"):
        await run_command("fingerprint")
