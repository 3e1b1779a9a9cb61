"""Accuracy shadowing on a real split vLLM: sampled answers are the unsampled ones, and damaged KV is seen."""

import re
from pathlib import Path

import pytest
from tests.vllm.conftest import UseCluster
from tests.vllm.engine_calls import Answer, call
from tests.vllm.kv_calls import prompt_of, wait_until

from cluster import Cluster, ClusterSpec, EngineSpec

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


def shadow_cluster(use_cluster: UseCluster, *settings: str) -> Cluster:
    common = {"dtype": "float32", "connector": "ppd"}
    engines = (
        EngineSpec(role="prefill", **common),
        EngineSpec(role="decode", **common),
        EngineSpec(role="aggregated", is_baseline=True, **common),
    )
    return use_cluster(ClusterSpec(engines=engines, mode="pd", proxy_args=("--shadow-rate", "1", *settings)))


@pytest.fixture
def cluster(use_cluster: UseCluster) -> Cluster:
    return shadow_cluster(use_cluster)


def rate(cluster: Cluster, share: float) -> None:
    assert call(f"{cluster.proxy_url}/accuracy/rate/{share}", {}).status == 200


def accuracy(cluster: Cluster) -> dict:
    return call(f"{cluster.proxy_url}/accuracy").body


def plain(text: str) -> str:
    """Without ids, times and what depends on the prefix cache."""
    text = re.sub(r'"((chat)?cmpl-)[^"]*"', r'"\1"', text)
    text = re.sub(r'"created":\d+', '"created":0', text)
    return re.sub(r'"cached_tokens":\d+', '"cached_tokens":0', text)


def shapes(answer: Answer) -> set:
    """The fields a stream's choices have, in order: how many tokens an engine puts into one event is chance."""
    choices = [choice for event in answer.events for choice in event.get("choices", ())]
    return {(*each, each["finish_reason"], each.get("logprobs") is None) for each in choices}


def text_of(answer: Answer) -> str:
    parts = [choice for event in answer.events for choice in event.get("choices", ())]
    return "".join(part.get("text") or (part.get("delta") or {}).get("content") or "" for part in parts)


def hold_sampled_against_unsampled(cluster: Cluster, path: str, seed: int, fields: dict) -> None:
    """Byte for byte where both came in equal events (JSON has none), else what they say and every field they have."""
    text = prompt_of(80, seed)
    prompt = {"prompt": text} if path == COMPLETIONS else {"messages": [{"role": "user", "content": text}]}
    answers = []
    for share in (0, 1):
        rate(cluster, share)
        body = {"model": cluster.model_name, "max_tokens": 24, "temperature": 0, **prompt, **fields}
        answers.append(call(cluster.proxy_url + path, body))
    unsampled, sampled = answers
    assert {answer.status for answer in answers} == {200}
    assert text_of(sampled) == text_of(unsampled)
    if len(sampled.events) == len(unsampled.events):
        assert plain(sampled.text) == plain(unsampled.text)
    else:
        assert shapes(sampled) == shapes(unsampled)


@pytest.mark.vllm_smoke
@pytest.mark.parametrize("logprobs", [None, 0, 2])
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_a_sampled_json_answer_is_the_unsampled_one_byte_for_byte(
    cluster: Cluster, path: str, logprobs: int | None
) -> None:
    body = {"model": cluster.model_name, "max_tokens": 24, "temperature": 0}
    text = prompt_of(80, 900)
    body |= {"prompt": text} if path == COMPLETIONS else {"messages": [{"role": "user", "content": text}]}
    if logprobs is not None:
        body |= {"logprobs": logprobs} if path == COMPLETIONS else {"logprobs": True, "top_logprobs": logprobs}
    answers = []
    for share in (0, 1, 0):
        rate(cluster, share)
        answers.append(call(cluster.proxy_url + path, body))
    assert {answer.status for answer in answers} == {200}
    assert plain(answers[0].text) == plain(answers[1].text) == plain(answers[2].text)


@pytest.mark.vllm_smoke
@pytest.mark.parametrize("logprobs", [None, 2])
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_a_sampled_stream_is_the_unsampled_one(cluster: Cluster, path: str, logprobs: int | None) -> None:
    fields: dict = {"stream": True}
    if logprobs is not None:
        fields |= {"logprobs": logprobs} if path == COMPLETIONS else {"logprobs": True, "top_logprobs": logprobs}
    hold_sampled_against_unsampled(cluster, path, 901, fields)


@pytest.mark.vllm_smoke
def test_every_sample_is_checked_and_judged_once_the_noise_is_known(cluster: Cluster) -> None:
    rate(cluster, 1)
    for number in range(20):
        body = {"model": cluster.model_name, "prompt": prompt_of(60, 950 + number), "max_tokens": 16, "temperature": 0}
        assert call(f"{cluster.proxy_url}{COMPLETIONS}", body).status == 200
    assert call(f"{cluster.proxy_url}/accuracy/calibrate?samples=320", {}).status == 200
    wait_until(lambda: not accuracy(cluster)["calibrating"] and not accuracy(cluster)["parked"], "all judged", 240)
    told = accuracy(cluster)
    assert sum(told["outcomes"]["pd"].values()) >= 20
    assert set(told["outcomes"]["pd"]) <= {"exact", "tie", "drift"}
    assert told["dropped"] == {}
    assert all(scope["verdict"] in ("green", "unknown") for scope in told["scopes"])


@pytest.mark.vllm_smoke
def test_with_likeliest_tokens_answers_are_the_same_and_their_spread_is_kept(
    use_cluster: UseCluster, tmp_path: Path
) -> None:
    cluster = shadow_cluster(use_cluster, "--shadow-top-logprobs", "5", "--journal", str(tmp_path / "journal.db"))
    requests = (COMPLETIONS, False), (CHAT, False), (COMPLETIONS, True), (CHAT, True)
    for path, stream in requests:
        hold_sampled_against_unsampled(cluster, path, 970, {"stream": stream})
    wait_until(lambda: accuracy(cluster)["parked"] == len(requests), "all checked")
    assert call(f"{cluster.proxy_url}/accuracy/calibrate?samples=320", {}).status == 200
    wait_until(lambda: not accuracy(cluster)["calibrating"] and not accuracy(cluster)["parked"], "all judged", 240)
    told = accuracy(cluster)
    assert (told["top_logprobs"], sum(told["outcomes"]["pd"].values())) == (5, 4)
    wait_until(lambda: len(call(f"{cluster.proxy_url}/accuracy/samples").body["samples"]) == 4, "all written")
    for sample in call(f"{cluster.proxy_url}/accuracy/samples").body["samples"]:
        spread = sample["spread"]
        assert spread["positions"] == sample["answer_tokens"]
        assert spread["entropy_low"] <= spread["entropy_change"] <= spread["entropy_high"]
        assert abs(spread["entropy_change"]) < 0.01
        assert 0 <= spread["divergence"] <= spread["largest_divergence"] < 0.01
