"""compare-logprobs: equal texts with other numbers are different, and what follows a difference is scored, not read
at the same position."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.support.acc.commands import lines_of, run_command
from tests.support.acc.engines import chat_answer, scored_prompt, scripted_engine

from ppd_acc.outcome import Exit, Mistake, Trouble
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.model.model import ModelConfig

TOKENS = tuple(range(10, 26))
PROMPT = (1, 2, 3)


def sim(**model: Any) -> EngineConfig:
    return EngineConfig(role="aggregated", model=ModelConfig(**{"prefill_noise_nats": 0.02, **model}))


async def compared(*arguments: str, noise: float = 0.0, **model: Any) -> Any:
    async with running_engine(sim()) as one, running_engine(sim(engine_noise_nats=noise, **model)) as other:
        return await run_command(
            "compare-logprobs", "--baseline", one.url, "--target", other.url, "--prompt", "Hello world", *arguments
        )


def scripted(tokens: Sequence[int], logprob: float, *, second: float = -3.0, floor_nats: float = 0.05) -> Any:
    """Every token has this logprob, and half of them `floor_nats` less in the engine's own prefill."""

    def answering(body: Mapping[str, Any]) -> Mapping[str, Any]:
        if "prompt_logprobs" in body:
            given = body["prompt"][len(PROMPT) :]
            tops = {
                len(PROMPT) + place: {token: logprob - floor_nats * (place % 2), token + 500: second}
                for place, token in enumerate(given)
            }
            return scored_prompt(body["prompt"], tops)
        tops = [{token: logprob, token + 500: second} for token in tokens]
        return chat_answer(tokens, tops, text="the same words", prompt=PROMPT)

    return answering


async def scripted_pair(one: Any, other: Any, *arguments: str) -> Any:
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(scripted_engine(each)) for each in (one, other)]
        return await run_command(
            "compare-logprobs", "--baseline", urls[0], "--target", urls[1], "--prompt", "x", *arguments
        )


async def test_engines_of_the_same_numbers_are_equal():
    result = await compared("--top-k", "10")
    (target,) = result.data["comparisons"]
    assert (result.exit, target["outcome"], target["max_delta"]) == (Exit.PASS, "pass", 0.0)
    assert target["positions"][0]["baseline_rank"] == 1
    assert len(target["positions"]) == result.data["sample"]["compared_tokens"]


async def test_the_same_tokens_with_other_logprobs_are_different():
    result = await scripted_pair(scripted(TOKENS, -0.5), scripted(TOKENS, -0.9))
    (target,) = result.data["comparisons"]
    assert (result.exit, target["status"]) == (Exit.DIFFERENT, "equal")
    assert target["decoded"]["beyond"] == len(TOKENS)
    assert target["max_delta"] == pytest.approx(0.4)
    # 16 tokens, all beyond the 8 x 8 healthy ones that moved; two tests, so twice the smaller chance.
    assert target["chance"] == pytest.approx(2 / math.comb(80, 16))
    assert "lost precision" in target["reasons"][0]


async def test_behind_a_real_difference_precision_is_not_called_lost():
    result = await scripted_pair(scripted(TOKENS, -0.1, second=-7.0), scripted([*TOKENS[:-1], 99], -0.9, second=-7.0))
    (target,) = result.data["comparisons"]
    assert (result.exit, target["status"]) == (Exit.DIFFERENT, "real")
    assert "the first difference is real" in target["reasons"][0]
    assert "logprob differences are beyond all" in target["reasons"][1]
    assert not any("lost precision" in reason for reason in target["reasons"])


async def test_the_leads_are_not_called_margins():
    result = await compared()
    shown = "\n".join(lines_of(result))
    assert "lead over" in shown
    assert "margins" not in shown


async def test_differences_within_the_noise_pass():
    result = await scripted_pair(scripted(TOKENS, -0.5), scripted(TOKENS, -0.54))
    assert (result.exit, result.data["comparisons"][0]["decoded"]["beyond"]) == (Exit.PASS, 0)


async def test_without_a_noise_floor_only_equal_bits_pass():
    other = await scripted_pair(scripted(TOKENS, -0.5), scripted(TOKENS, -0.501), "--noise-floor", "0")
    same = await scripted_pair(scripted(TOKENS, -0.5), scripted(TOKENS, -0.5), "--noise-floor", "0")
    assert (other.exit, same.exit) == (Exit.INCONCLUSIVE, Exit.PASS)


async def test_the_tokens_behind_a_difference_are_scored_by_the_baseline():
    result = await compared("--max-tokens", "60", noise=0.1)
    (target,) = result.data["comparisons"]
    at = result.data["sample"]["flip"]["position"]
    behind = [row for row in target["positions"] if row["position"] > at]
    assert behind
    assert all(row["delta"] is None and row["divergence"] is None and not row["is_common"] for row in behind)
    assert all(row["forced_delta"] is not None for row in behind)
    assert target["forced"]["tokens"] == 60
    assert target["prefilled"]["tokens"] == 60
    assert result.exit == Exit.DIFFERENT


async def test_the_divergence_is_worked_with_one_bucket_for_the_rest():
    result = await scripted_pair(scripted(TOKENS, -0.5), scripted(TOKENS, -0.54))
    p, q, tail = math.exp(-0.5), math.exp(-0.54), math.exp(-3.0)
    rest = (1 - p - tail) * math.log((1 - p - tail) / (1 - q - tail))
    assert result.data["comparisons"][0]["largest_divergence"] == pytest.approx(p * 0.04 + rest)


async def test_a_limit_that_is_set_is_a_limit():
    pair = scripted(TOKENS, -0.5), scripted(TOKENS, -0.54)
    assert (await scripted_pair(*pair, "--kl-threshold", "0.1")).exit == Exit.PASS
    strict = await scripted_pair(*pair, "--kl-threshold", "0.0001")
    assert strict.exit == Exit.DIFFERENT
    assert "--kl-threshold" in strict.data["comparisons"][0]["reasons"][0]


async def test_a_logprob_that_is_no_number_never_passes():
    def broken(body: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = dict(scripted(TOKENS, -0.5)(body))
        if "prompt_logprobs" not in body:
            answer["choices"][0]["logprobs"]["content"][3]["logprob"] = None
        return answer

    result = await scripted_pair(scripted(TOKENS, -0.5), broken)
    assert result.exit == Exit.DIFFERENT
    assert "no numbers" in result.data["comparisons"][0]["reasons"][0]


async def test_another_tokenization_of_the_prompt_is_different():
    def other(body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**scripted(TOKENS, -0.5)(body), "prompt_token_ids": [1, 2, 4]}

    result = await scripted_pair(scripted(TOKENS, -0.5), other)
    assert (result.exit, result.data["comparisons"][0]["has_same_prompt"]) == (Exit.DIFFERENT, False)


async def test_no_token_on_either_side_is_no_pass():
    result = await scripted_pair(scripted((), -0.5), scripted((), -0.5))
    assert result.exit == Exit.INCONCLUSIVE


async def test_an_engine_without_logprobs_is_trouble():
    def mute(body: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = dict(scripted(TOKENS, -0.5)(body))
        answer["choices"][0]["logprobs"] = None
        return answer

    with pytest.raises(Trouble, match="gives no logprobs"):
        await scripted_pair(scripted(TOKENS, -0.5), mute)


async def test_nodes_are_shown_beside_the_target():
    async with running_engine(sim()) as one, running_engine(sim(engine_noise_nats=0.3)) as other:
        result = await run_command(
            "compare-logprobs", "--baseline", one.url, "--target", one.url, "--prompt", "Hello world",
            "--prefill-node", other.url, "--decode-node", one.url,
        )  # fmt: skip
    outcomes = {each["name"]: each["outcome"] for each in result.data["comparisons"]}
    assert outcomes == {"target": "pass", "prefill_node": "different", "decode_node": "pass"}
    assert result.exit == Exit.PASS


async def test_a_prompt_is_needed():
    with pytest.raises(Mistake, match="--prompt is missing"):
        await run_command("compare-logprobs", "--baseline", "http://a", "--target", "http://b")
