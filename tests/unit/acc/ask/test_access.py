"""How engines are reached and asked."""

import pytest

from ppd_acc.ask.access import Access, Sampling


def access(**more):
    values = {"model": None, "api_key": "a", "headers": {}, "endpoint": "chat", "timeout_s": 1.0, "retries": 0,
              "retry_delay_s": 0.1, "concurrency": 1, **more}  # fmt: skip
    return Access(**values)


@pytest.mark.parametrize(("side", "key"), [("", "a"), ("baseline", "a"), ("target", "t"), ("prefill_node", "t")])
def test_a_targets_key_is_of_every_engine_but_the_baseline(side, key):
    assert access(target_api_key="t").key_of(side) == key
    assert access().key_of(side) == "a"


@pytest.mark.parametrize(("temperature", "is_greedy"), [(0.0, True), (1e-6, True), (0.01, False)])
def test_a_temperature_next_to_nothing_is_greedy(temperature, is_greedy):
    assert Sampling(temperature=temperature, top_p=1.0, seed=1, max_tokens=1, top_k=1).is_greedy == is_greedy
