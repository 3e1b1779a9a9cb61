"""The proxy in front of a real split vLLM: right tokens, right routes, nothing left behind on the prefill engine."""

import json
import random
import socket
import time
import urllib.parse

import pytest
from tests.vllm.engine_calls import Answer, call, completion

from cluster import Cluster

WORDS = (
    "river mountain cloud engine window paper copper garden winter signal harbor velvet orange silent forest".split()
)
HANDOFF_WAIT_S = 20
"""Below the 30 s lease: what is free by then was freed by a decode engine, not by the lease."""


def prompt_of(words: int, seed: int) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) for _ in range(words))


def wait_until(is_true, what: str, limit_s: float = HANDOFF_WAIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.1)  # a real engine tells nothing but its metrics


def kv_in_use(cluster: Cluster) -> float:
    """Share of the prefill engine's KV cache that requests hold; cached blocks that nobody holds do not count."""
    return cluster.engine("prefill").counter("vllm:kv_cache_usage_perc")


@pytest.fixture
def prefill_is_empty(float32_cluster: Cluster):
    yield
    wait_until(lambda: kv_in_use(float32_cluster) == 0, "the prefill engine holds no KV")


def compare(cluster: Cluster, count: int) -> None:
    """pd and direct answers against the aggregated engine's: `count` prompts x 64 greedy tokens each."""
    unsplit = cluster.engine("aggregated").url
    for seed in range(count):
        first = prompt_of(20 + 37 * seed % 600, seed)
        split = completion(cluster.proxy_url, first)
        assert split.decision.startswith("pd;"), split
        assert split.token_ids == completion(unsplit, first).token_ids, f"pd differs for prompt {seed}"
        second = first + split.body["choices"][0]["text"] + " " + prompt_of(30, 1000 + seed)
        direct = completion(cluster.proxy_url, second)
        assert direct.decision == "direct;reason=known_history;turn=2"
        assert direct.token_ids == completion(unsplit, second).token_ids, f"direct differs for prompt {seed}"


@pytest.mark.vllm_smoke
def test_pd_and_direct_answers_are_token_identical_to_an_unsplit_engine(float32_cluster: Cluster) -> None:
    compare(float32_cluster, 4)


def test_thirty_prompts_are_token_identical_to_an_unsplit_engine(float32_cluster: Cluster) -> None:
    compare(float32_cluster, 30)


@pytest.mark.vllm_smoke
def test_a_five_turn_chat_prefills_once_and_streams_what_an_unsplit_engine_answers(float32_cluster: Cluster) -> None:
    cluster = float32_cluster
    prefill, decode = cluster.engine("prefill"), cluster.engine("decode")
    legs_before = prefill.counter("vllm:request_success_total")
    moved_before = decode.counter("vllm:prompt_tokens_by_source_total", source="external_kv_transfer")
    messages = [{"role": "system", "content": prompt_of(150, 7)}]
    for turn in range(1, 6):
        messages.append({"role": "user", "content": prompt_of(20, 100 + turn)})
        body = {"model": "tiny", "messages": messages, "max_tokens": 24, "temperature": 0, "ignore_eos": True}
        whole = call(f"{cluster.engine('aggregated').url}/v1/chat/completions", body)
        stream = call(f"{cluster.proxy_url}/v1/chat/completions", {**body, "stream": True})
        expected = "pd;reason=first_turn;turn=1" if turn == 1 else f"direct;reason=known_history;turn={turn}"
        assert stream.decision == expected
        said = "".join(event["choices"][0]["delta"].get("content") or "" for event in stream.events)
        assert said == whole.body["choices"][0]["message"]["content"]
        assert stream.text.rstrip().endswith("data: [DONE]")
        assert "kv_transfer_params" not in stream.text
        messages.append({"role": "assistant", "content": said})
    assert prefill.counter("vllm:request_success_total") - legs_before == 1
    assert decode.counter("vllm:prompt_tokens_by_source_total", source="external_kv_transfer") > moved_before


@pytest.mark.vllm_smoke
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"prompt": ["one river", "two mountains and a cloud"]}, id="two texts, second longer"),
        pytest.param({"prompt": ["two mountains and a cloud", "one river"]}, id="two texts, second shorter"),
        pytest.param({"prompt": [[5, 6, 7], [8, 9, 10, 11]]}, id="two id lists"),
        pytest.param({"n": 3, "temperature": 0.7, "seed": 1}, id="three choices"),
    ],
)
def test_several_sequences_never_ride_one_handoff(float32_cluster: Cluster, fields: dict) -> None:
    cluster = float32_cluster
    moved = lambda: cluster.engine("decode").counter("vllm:nixl_bytes_transferred_sum")  # noqa: E731
    before = moved()
    split = completion(cluster.proxy_url, "unused", 16, **{"prompt": prompt_of(40, 3), **fields})
    assert split.status == 200
    assert split.decision.startswith("aggregated;reason=multi_sequence")
    assert moved() == before
    assert completion(cluster.proxy_url, prompt_of(40, 4), 8).status == 200, "the engines still live"


def test_several_sequences_go_to_the_decode_engine_alone_without_an_aggregated_one(float32_cluster: Cluster) -> None:
    cluster = float32_cluster
    unsplit = cluster.engine("aggregated").url
    body = {"prompt": ["one river", "two mountains and a cloud"]}
    expected = completion(unsplit, "unused", 16, **body)
    removed = call(f"{cluster.proxy_url}/engines/{urllib.parse.urlsplit(unsplit).netloc}", method="DELETE")
    assert removed.status == 200, removed
    try:
        split = completion(cluster.proxy_url, "unused", 16, **body)
    finally:
        call(f"{cluster.proxy_url}/engines", {"url": unsplit, "role": "aggregated"})
    assert split.decision.startswith("direct;reason=multi_sequence")
    assert [c["token_ids"] for c in split.body["choices"]] == [c["token_ids"] for c in expected.body["choices"]]


@pytest.mark.vllm_smoke
@pytest.mark.usefixtures("prefill_is_empty")
def test_a_decode_engines_refusal_arrives_verbatim_and_frees_the_prefill_engine(float32_cluster: Cluster) -> None:
    cluster = float32_cluster
    prompt = prompt_of(300, 11)
    split = completion(cluster.proxy_url, prompt, 5000)
    unsplit = completion(cluster.engine("aggregated").url, prompt, 5000)
    assert (split.status, split.body) == (400, unsplit.body)
    wait_until(lambda: kv_in_use(cluster) == 0, "the refused request's KV is freed")


@pytest.mark.usefixtures("prefill_is_empty")
@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.1, 0.3])
def test_a_client_that_leaves_frees_what_the_prefill_engine_holds(float32_cluster: Cluster, after_s: float) -> None:
    host, port = urllib.parse.urlsplit(float32_cluster.proxy_url).netloc.split(":")
    body = json.dumps({"model": "tiny", "max_tokens": 400, "stream": True, "prompt": prompt_of(900, 12)})
    with socket.create_connection((host, int(port))) as connection:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        time.sleep(after_s)  # the client leaves in another phase of its request each time
    wait_until(lambda: inflight(float32_cluster) == 0, "the proxy counts nothing in flight")


def inflight(cluster: Cluster) -> int:
    return sum(engine["inflight_requests"] for engine in call(f"{cluster.proxy_url}/engines").body["engines"])


def test_a_prompt_that_is_too_long_gets_the_engines_own_answer(float32_cluster: Cluster) -> None:
    prompt = prompt_of(6000, 13)
    split = completion(float32_cluster.proxy_url, prompt)
    unsplit = completion(float32_cluster.engine("aggregated").url, prompt)
    assert (split.status, split.body) == (unsplit.status, unsplit.body) == (400, unsplit.body)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"min_tokens": 8}, id="min_tokens"),
        pytest.param({"stop": [" river"]}, id="stop"),
        pytest.param({"logprobs": 2}, id="logprobs"),
        pytest.param({"truncate_prompt_tokens": 50}, id="truncate_prompt_tokens"),
        pytest.param({"add_special_tokens": False}, id="add_special_tokens"),
        pytest.param({"echo": True}, id="echo"),
    ],
)
def test_both_legs_render_the_same_prompt(float32_cluster: Cluster, fields: dict) -> None:
    prompt = prompt_of(120, 14)
    split = completion(float32_cluster.proxy_url, prompt, 32, **fields)
    unsplit = completion(float32_cluster.engine("aggregated").url, prompt, 32, **fields)
    assert split.decision.startswith("pd;")
    assert split.body["usage"]["prompt_tokens"] == unsplit.body["usage"]["prompt_tokens"]
    assert said(split) == said(unsplit)


def said(answer: Answer) -> tuple[str, list[int], str]:
    choice = answer.body["choices"][0]
    return choice["text"], choice["token_ids"], choice["finish_reason"]
