"""The noise floor's prompts: each whole once, then cut."""

import random

from tests.unit.shadow.test_sample import fields, sample

from ppd_proxy.accuracy.noise import key_of
from ppd_proxy.core.candidate import Candidate
from ppd_proxy.shadow.seeds import Seeds


def seed(length: int, **values: object) -> tuple:
    prompt = list(range(length))
    candidate = Candidate(
        prompt_token_ids=prompt, token_ids=[5] * 7, logprobs=[-1.0] * 7, tops=[], finish_reason="stop", text="",
        tool_calls=[],
    )  # fmt: skip
    return key_of("m", length, is_greedy=True), sample(candidate=candidate, fields=fields(**values))


def test_a_prompt_is_used_whole_once_and_cut_in_its_second_half_afterwards() -> None:
    seeds = Seeds(random.Random(1).random)
    key, one = seed(200, temperature=0)
    seeds.add(key, one)
    lengths = [len(seeds.take(key).prompt) for _ in range(20)]
    assert lengths[0] == 200
    assert all(100 <= length < 200 for length in lengths[1:])
    assert len(set(lengths)) > 10


def test_a_cut_prompt_stays_in_its_bucket() -> None:
    seeds = Seeds(random.Random(2).random)
    key, one = seed(300, temperature=0)
    seeds.add(key, one)
    assert all(key_of("m", len(seeds.take(key).prompt), is_greedy=True) == key for _ in range(50))


def test_noise_is_sampled_as_its_request_was() -> None:
    seeds = Seeds(random.Random(3).random)
    key, one = seed(50, temperature=0.7, top_p=0.9, seed=5, stream=True)
    seeds.add(key, one)
    body = seeds.take(key).body
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.9, 7)
    assert "seed" not in body
    assert "stream" not in body


def test_seeds_take_turns() -> None:
    seeds = Seeds(random.Random(4).random)
    key, one = seed(50)
    _, two = seed(60)
    seeds.add(key, one)
    seeds.add(key, two)
    assert [len(seeds.take(key).prompt) for _ in range(2)] == [50, 60]


def test_without_a_seed_there_is_nothing_to_take() -> None:
    assert Seeds(random.random).take(key_of("m", 5, is_greedy=True)) is None


def test_long_prompts_are_kept_in_smaller_numbers() -> None:
    seeds = Seeds(random.random)
    key = key_of("m", 1_000_000, is_greedy=True)
    for _ in range(20):
        seeds.add(key, seed(10)[1])
    assert seeds.count(key) < 6
