"""The noise floor's prompts: each whole once, then cut; suspects first where a verdict hangs on them."""

import random

from tests.unit.proxy.shadow.test_sample import fields, sample

from ppd_accuracy.verdicts.noise import NoiseKey, Sampling, key_of
from ppd_proxy.shadow.sample import Sample
from ppd_proxy.shadow.seeds import Seeds
from ppd_wire.answers.candidate import Candidate


def seed(length: int, sampling: Sampling = "greedy", **values: object) -> tuple[NoiseKey, Sample]:
    candidate = Candidate(
        prompt_token_ids=list(range(length)), token_ids=[5] * 7, logprobs=[-1.0] * 7, tops=[], finish_reason="stop",
        text="", tool_calls=[],
    )  # fmt: skip
    return key_of("m", length, sampling), sample(candidate=candidate, fields=fields(**values))


def lengths(seeds: Seeds, key: NoiseKey, count: int) -> list[int]:
    return [len(seeds.take(key).body["prompt"]) for _ in range(count)]


def test_a_prompt_is_used_whole_once_and_cut_in_its_second_half_afterwards() -> None:
    seeds = Seeds(random.Random(1).random)
    key, one = seed(200, temperature=0)
    seeds.add(key, one)
    found = lengths(seeds, key, 20)
    assert found[0] == 200
    assert all(100 <= length < 200 for length in found[1:])
    assert len(set(found)) > 10


def test_a_cut_prompt_stays_in_its_bucket() -> None:
    seeds = Seeds(random.Random(2).random)
    key, one = seed(300, temperature=0)
    seeds.add(key, one)
    assert all(key_of("m", length, "greedy") == key for length in lengths(seeds, key, 50))


def test_noise_is_sampled_as_its_request_was() -> None:
    seeds = Seeds(random.Random(3).random)
    key, one = seed(50, "sampled", temperature=0.7, top_p=0.9, seed=5, stream=True)
    seeds.add(key, one)
    body = seeds.take(key).body
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.9, 7)
    assert "seed" not in body
    assert "stream" not in body


def test_the_newest_comes_first_and_seeds_take_turns() -> None:
    seeds = Seeds(random.Random(4).random)
    key, one = seed(50)
    seeds.add(key, one)
    seeds.add(key, seed(60)[1])
    assert lengths(seeds, key, 2) == [60, 50]


def test_a_request_that_shapes_its_logits_is_repeated_whole_and_once() -> None:
    seeds = Seeds(random.Random(5).random)
    key, one = seed(50, "shaped", logit_bias={"5": -100}, temperature=0)
    seeds.add(key, one)
    noise = seeds.take(key)
    assert set(noise.body) >= {"logit_bias", "temperature", "return_token_ids", "logprobs"}
    assert seeds.take(key) is None


def test_what_is_doubted_is_repeated_before_anything_else() -> None:
    seeds = Seeds(random.Random(6).random)
    key, one = seed(50)
    seeds.add(key, one)
    seeds.suspect(key, seed(77)[1])
    assert len(seeds.take(key, is_doubted=True).body["prompt"]) == 77
    assert len(seeds.take(key, is_doubted=True).body["prompt"]) == 50


def test_without_a_seed_there_is_nothing_to_take() -> None:
    assert Seeds(random.random).take(key_of("m", 5, "greedy")) is None


def test_long_prompts_are_kept_in_smaller_numbers() -> None:
    seeds = Seeds(random.random)
    key = key_of("m", 1_000_000, "greedy")
    for _ in range(20):
        seeds.add(key, seed(10)[1])
    assert seeds.count(key) < 6
