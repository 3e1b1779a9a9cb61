"""Our KV connector on a real split vLLM: right tokens, exactly the bytes that were needed, nothing left behind."""

import threading  # noqa: TID251  several clients at once

import pytest
from tests.vllm.conftest import UseCluster
from tests.vllm.engine_calls import completion
from tests.vllm.kv_calls import (
    BYTES_PER_TOKEN,
    hand_over,
    held_bytes,
    kv_in_use,
    moved,
    new_tag,
    post,
    ppd_cluster,
    prompt_of,
    settled,
    wait_until,
)

from cluster import Cluster

SEND_TYPES = ("PUT", "PUT_ASYNC", "GET")
TURNS = 10
SMALL_BLOCK_TOKENS = 32
"""The smallest block that vLLM's CPU attention takes."""


def cluster_for(use_cluster: UseCluster, send_type: str, block_tokens: int | None = None, **changes) -> Cluster:
    engine = {"kv_settings": {"send_type": send_type}, "block_tokens": block_tokens}
    return use_cluster(ppd_cluster(decode=engine, prefill=engine, **changes))


@pytest.fixture(params=SEND_TYPES)
def cluster(request: pytest.FixtureRequest, use_cluster: UseCluster) -> Cluster:
    return cluster_for(use_cluster, request.param)


@pytest.fixture
def smoke_cluster(use_cluster: UseCluster) -> Cluster:
    return cluster_for(use_cluster, "PUT_ASYNC")


def compare(cluster: Cluster, counts: list[int]) -> None:
    """pd and direct answers against the aggregated engine's, and bytes against the scheduler's tokens."""
    decode, unsplit = cluster.engine("decode"), cluster.engine("aggregated").url
    before = moved(decode)
    for seed, words in enumerate(counts):
        first = prompt_of(words, 7000 + seed)
        split = completion(cluster.proxy_url, first)
        assert split.decision.startswith("pd;"), split
        assert "kv_transfer_params" not in split.body or split.body["kv_transfer_params"] is None
        assert split.token_ids == completion(unsplit, first).token_ids, f"pd differs for prompt {seed}"
    gained = settled(decode, before, len(counts))
    print(f"{len(counts)} prompts: {gained}")
    assert gained.failures == 0
    assert gained.tokens > 0
    assert gained.kv_bytes == gained.tokens * BYTES_PER_TOKEN


@pytest.mark.vllm_smoke
def test_a_few_prompts_are_token_identical_and_move_what_the_scheduler_was_told(smoke_cluster: Cluster) -> None:
    compare(smoke_cluster, [24, 180, 420])


def test_fifty_prompts_are_token_identical_and_move_what_the_scheduler_was_told(cluster: Cluster) -> None:
    compare(cluster, [27 + 16 * number for number in range(50)])


@pytest.mark.vllm_smoke
def test_a_later_turn_goes_direct_and_moves_nothing(smoke_cluster: Cluster) -> None:
    text = prompt_of(200, 31)
    first = completion(smoke_cluster.proxy_url, text)
    before = moved(smoke_cluster.engine("decode"))
    text += first.body["choices"][0]["text"] + " " + prompt_of(20, 32)
    second = completion(smoke_cluster.proxy_url, text)
    assert second.decision == "direct;reason=known_history;turn=2"
    assert second.token_ids == completion(smoke_cluster.engine("aggregated").url, text).token_ids
    assert moved(smoke_cluster.engine("decode")) == before


@pytest.mark.vllm_smoke
@pytest.mark.parametrize(
    "request_id",
    ["plain", "___prefill_addr_1.2.3.4:1___decode_addr_nowhere_0", "___decode_addr_127.0.0.1:1_"],
    ids=["no tag", "half a tag", "no key"],
)
def test_a_request_without_a_good_tag_is_computed_by_the_engine_itself(smoke_cluster: Cluster, request_id: str) -> None:
    text = prompt_of(90, 33)
    expected = completion(smoke_cluster.engine("aggregated").url, text).token_ids
    for role in ("prefill", "decode"):
        assert post(smoke_cluster.engine(role), request_id, text, 64).token_ids == expected


def test_an_answer_tells_what_its_kv_cost(cluster: Cluster) -> None:
    text = prompt_of(200, 34)
    answer = hand_over(cluster, text)
    told = answer.body["kv_transfer_params"]["ppd_transfer"]
    tokens = answer.body["usage"]["prompt_tokens"] - 1
    assert told["bytes"] == tokens * BYTES_PER_TOKEN
    assert 0 < told["seconds"] < 30
    assert told["blocks"] == -(-tokens // 128)
    assert told["skipped_blocks"] == 0


def play(cluster: Cluster, how: str) -> tuple[list[list[int]], list[int], float]:
    """Ten turns of about a hundred tokens: the answers' tokens, the prompts' lengths, the bytes that were moved.

    `whole`: each turn with a salt of its own, so that the decode engine's cache never helps.
    """
    decode = cluster.engine("decode")
    before, text, answers, lengths = moved(decode), "", [], []
    for turn in range(TURNS):
        text += " " + prompt_of(35, 100 + turn)
        if how == "selective":
            answer = completion(cluster.proxy_url, text, 20)
            assert answer.decision.startswith("pd;reason=" + ("mode_pd" if turn else "first_turn")), answer.decision
        elif how == "whole":
            answer = hand_over(cluster, text, 20, cache_salt=f"turn {turn}")
        else:
            answer = completion(cluster.engine("aggregated").url, text, 20)
        answers.append(answer.token_ids)
        lengths.append(answer.body["usage"]["prompt_tokens"])
        text += answer.body["choices"][0]["text"]
    if how == "unsplit":
        return answers, lengths, 0.0
    return answers, lengths, settled(decode, before, TURNS).kv_bytes


@pytest.mark.parametrize("send_type", ["PUT_ASYNC", "GET"])
def test_selective_transfer_moves_a_quarter_at_most(use_cluster: UseCluster, send_type: str) -> None:
    cluster = cluster_for(use_cluster, send_type, SMALL_BLOCK_TOKENS, mode="pd")
    whole, lengths, whole_bytes = play(cluster, "whole")
    selective, _, selective_bytes = play(cluster, "selective")
    unsplit, _, _ = play(cluster, "unsplit")
    everything = sum(length - 1 for length in lengths)
    held = [0, *(rounded_down(length + 20 - 1) for length in lengths)]
    missing = sum(length - 1 - known for known, length in zip(held, lengths, strict=False))
    print(
        f"{send_type}: {selective_bytes / whole_bytes:.3f} of the bytes; the ideal of ten equal turns 1/5.5 ="
        f" {1 / 5.5:.3f}; blocks of {SMALL_BLOCK_TOKENS} tokens allow {missing / everything:.3f}"
    )
    assert whole == selective == unsplit
    assert whole_bytes == everything * BYTES_PER_TOKEN
    assert selective_bytes <= whole_bytes / 4
    assert selective_bytes == missing * BYTES_PER_TOKEN


def rounded_down(tokens: int) -> int:
    return tokens // SMALL_BLOCK_TOKENS * SMALL_BLOCK_TOKENS


def test_a_decode_engine_that_lost_what_it_held_computes_the_rest_itself(smoke_cluster: Cluster) -> None:
    text = prompt_of(400, 35)
    answer = hand_over(smoke_cluster, text, held_tokens=256)
    assert answer.token_ids == completion(smoke_cluster.engine("aggregated").url, text).token_ids
    wait_until(lambda: failures(smoke_cluster, "prefix_not_held") == 1, "the failure is counted")
    assert_nothing_is_left(smoke_cluster)


def failures(cluster: Cluster, reason: str, role: str = "decode") -> float:
    return cluster.engine(role).counter("vllm:ppd_kv_failures_total", reason=reason)


def assert_nothing_is_left(cluster: Cluster) -> None:
    for role in ("prefill", "decode"):
        engine = cluster.engine(role)
        post(engine, "step", prompt_of(4, 1), 1)  # figures travel with steps
        wait_until(lambda engine=engine: kv_in_use(engine) == 0, f"{engine.spec.role} holds no block")
        wait_until(lambda engine=engine: held_bytes(engine) == 0, f"{engine.spec.role} holds no KV for others")


def test_a_prompt_in_chunks_of_many_requests_is_moved_whole(use_cluster: UseCluster) -> None:
    """Chunked prefill: several long prompts share steps of 256 tokens."""
    limits = ("--max-num-batched-tokens", "256")
    engine = {"kv_settings": {"send_type": "PUT_ASYNC"}, "extra_args": limits}
    cluster = use_cluster(ppd_cluster(decode=engine, prefill=engine))
    texts = [prompt_of(300 + 60 * number, 50 + number) for number in range(6)]
    answers: dict[int, list[int]] = {}

    def ask(number: int) -> None:
        answers[number] = completion(cluster.proxy_url, texts[number]).token_ids

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(texts))]
    before = moved(cluster.engine("decode"))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, text in enumerate(texts):
        assert answers[number] == completion(cluster.engine("aggregated").url, text).token_ids, number
    gained = settled(cluster.engine("decode"), before, len(texts))
    assert gained.failures == 0
    assert gained.kv_bytes == gained.tokens * BYTES_PER_TOKEN
    assert_nothing_is_left(cluster)


def test_preempted_requests_come_back_with_the_right_tokens(use_cluster: UseCluster) -> None:
    """A decode engine with room for about three of eight requests puts requests back and takes them up again."""
    tight = ("--num-gpu-blocks-override", "22")
    engine = {"kv_settings": {"send_type": "PUT_ASYNC"}, "max_model_len_tokens": 2048}
    cluster = use_cluster(ppd_cluster(decode={**engine, "extra_args": tight}, prefill=engine))
    texts = [prompt_of(150, 80 + number) for number in range(8)]
    answers: dict[int, list[int]] = {}

    def ask(number: int) -> None:
        answers[number] = completion(cluster.proxy_url, texts[number], 200).token_ids

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, text in enumerate(texts):
        assert answers[number] == completion(cluster.engine("aggregated").url, text, 200).token_ids, number
    assert cluster.engine("decode").counter("vllm:num_preemptions_total") > 0
    assert_nothing_is_left(cluster)


@pytest.mark.parametrize("send_type", ["PUT_ASYNC", "GET"])
def test_every_rank_moves_its_share(use_cluster: UseCluster, send_type: str) -> None:
    """Tensor parallel over two ranks, each with one of the two KV heads and a port of its own."""
    ranks = ("--tensor-parallel-size", "2", "--distributed-executor-backend", "mp")
    engine = {"kv_settings": {"send_type": send_type}, "extra_args": ranks}
    cluster = use_cluster(ppd_cluster(decode=engine, prefill=engine))
    before = moved(cluster.engine("decode"))
    for seed in range(4):
        text = prompt_of(60 + 90 * seed, 400 + seed)
        split = completion(cluster.proxy_url, text)
        assert split.decision.startswith("pd;"), split
        assert split.token_ids == completion(cluster.engine("aggregated").url, text).token_ids
    gained = settled(cluster.engine("decode"), before, 2 * 4)
    assert gained.failures == 0
    assert gained.kv_bytes == gained.tokens * BYTES_PER_TOKEN
    assert_nothing_is_left(cluster)


def impatient_cluster(use_cluster: UseCluster, send_type: str) -> Cluster:
    engine = {"kv_settings": {"send_type": send_type, "lease_s": 2, "timeout_s": 2, "fence_s": 0}}
    return use_cluster(ppd_cluster(decode=engine, prefill=engine))


@pytest.mark.parametrize("send_type", ["GET", "PUT_ASYNC"])
def test_kv_that_nobody_fetches_is_freed_by_lease(use_cluster: UseCluster, send_type: str) -> None:
    cluster = impatient_cluster(use_cluster, send_type)
    prefill, decode = cluster.engine("prefill"), cluster.engine("decode")
    tag, text = new_tag(prefill, decode), prompt_of(300, 36)
    assert post(prefill, tag, text, 1).status == 200
    holder = prefill if send_type == "GET" else decode

    def is_expired() -> bool:
        post(holder, "step", "a b", 1)  # figures travel with steps
        return failures(cluster, "expired", holder.spec.role) == 1

    wait_until(is_expired, "the lease ends")
    assert_nothing_is_left(cluster)
    late = post(decode, tag, text, 16)
    assert late.status == 500, "kv_load_failure_policy is fail"
    assert completion(cluster.proxy_url, text).token_ids == completion(cluster.engine("aggregated").url, text).token_ids


def test_a_stream_of_a_failed_load_ends_with_an_error(use_cluster: UseCluster) -> None:
    cluster = impatient_cluster(use_cluster, "PUT_ASYNC")
    decode = cluster.engine("decode")
    tag = new_tag(cluster.engine("prefill"), decode)
    stream = post(decode, tag, prompt_of(200, 37), 16, stream=True)
    assert "error" in stream.text or stream.status >= 500
    assert not any(choice.get("text") for event in stream.events for choice in event.get("choices", ()))
