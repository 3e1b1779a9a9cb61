"""A prefill engine dies in the middle of a transfer, again and again: its decode engine lives on and never lies."""

import os
import signal
import threading  # noqa: TID251  a client that waits while its prefill engine is killed
import time
from typing import Any

import pytest
from tests.vllm.conftest import UseCluster
from tests.vllm.engine_calls import Answer, call, completion
from tests.vllm.kv_calls import held_bytes, kv_in_use, post, ppd_cluster, prompt_of, wait_until

from cluster import Cluster, Engine

DEATHS = 10
TIMEOUT_S = 2.0
PROMPT_WORDS = 700
ANSWER_TOKENS = 24


def throttled(send_type: str) -> dict[str, Any]:
    """A transfer of about 1,500 tokens (6 MB) takes 4 s."""
    return {"kv_settings": {"send_type": send_type, "fault": "throttle:1.5e6", "timeout_s": TIMEOUT_S}}


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("policy", "send_type"), [("recompute", "PUT_ASYNC"), ("fail", "GET")])
def test_a_prefill_engine_that_dies_costs_the_requests_that_waited_for_it(
    use_cluster: UseCluster, policy: str, send_type: str
) -> None:
    settings = {"send_type": send_type, "timeout_s": TIMEOUT_S, "fence_s": 1}
    spec = ppd_cluster(
        decode={"kv_settings": settings, "load_failure_policy": policy},
        prefill=throttled(send_type),
        proxy_args=("--retries", "0"),
    )
    cluster = use_cluster(spec)
    decode, unsplit = cluster.engine("decode"), cluster.engine("aggregated").url
    outcomes: list[str] = []
    for death in range(DEATHS):
        is_stream = death % 2 == 1
        victim = cluster.engine("prefill")
        text = prompt_of(PROMPT_WORDS, 900 + 2 * death)
        expected = completion(unsplit, text, ANSWER_TOKENS).body["choices"][0]["text"]
        answer = answer_while_dying(cluster, victim, text, is_stream)
        outcomes.append(judge(answer, expected, policy, is_stream))
        follow = prompt_of(60, 5000 + death)
        started_at = time.monotonic()
        direct = post(decode, "direct", follow, ANSWER_TOKENS)
        print(f"death {death + 1}: {outcomes[-1]}, next direct request {time.monotonic() - started_at:.2f} s")
        assert direct.token_ids == completion(unsplit, follow, ANSWER_TOKENS).token_ids
        wait_until(lambda: held_bytes(decode) == 0 and kv_in_use(decode) == 0, "the decode engine holds nothing")
        replace(cluster, victim)
        text = prompt_of(120, 6000 + death)
        again = completion(cluster.proxy_url, text, ANSWER_TOKENS)
        assert again.decision.startswith("pd;"), "a new prefill engine is used"
        assert again.token_ids == completion(unsplit, text, ANSWER_TOKENS).token_ids
    print(f"{policy}: {outcomes}")


def answer_while_dying(cluster: Cluster, victim: Engine, text: str, is_stream: bool) -> Answer:
    """Ask through the proxy, kill the prefill engine while its KV is under way, and give the answer."""
    answers: list[Answer] = []
    fields = {"stream": True} if is_stream else {}
    client = threading.Thread(
        target=lambda: answers.append(completion(cluster.proxy_url, text, ANSWER_TOKENS, **fields))
    )
    client.start()
    decode = cluster.engine("decode")
    wait_until(lambda: decode.counter("vllm:num_requests_waiting") > 0, "the decode engine waits for KV")
    os.killpg(victim.child.pid, signal.SIGKILL)
    client.join(60)
    assert answers, "the request hangs"
    return answers[0]


def judge(answer: Answer, expected: str, policy: str, is_stream: bool) -> str:
    """With `recompute` the answer is right; with `fail` it is an error, and never one that looks complete."""
    if policy == "recompute":
        assert answer.status == 200
        choices = [event["choices"][0] for event in answer.events] if is_stream else answer.body["choices"]
        assert "".join(choice["text"] for choice in choices) == expected
        return "right answer"
    assert answer.status >= 500 or (is_stream and '"error"' in answer.text), answer
    assert "[DONE]" not in answer.text
    return f"status {answer.status}"


def replace(cluster: Cluster, victim: Engine) -> None:
    """Start a prefill engine in place of the dead one and wait until the proxy uses it."""
    victim.child.stop(5)
    cluster.engines.remove(victim)
    cluster.wait_for(cluster.start_engine(victim.spec))
    newcomer = f"127.0.0.1:{cluster.engine('prefill').port}"

    def is_up() -> bool:
        known = call(f"{cluster.proxy_url}/engines").body["engines"]
        return any(each["id"] == newcomer and each["state"] == "up" for each in known)

    wait_until(is_up, "the proxy has heard of the new prefill engine")
