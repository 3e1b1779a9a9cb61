"""What the proxy reads off a real vLLM: its own ids in the answers of every endpoint, and both legs' prompt counts."""

import re

import pytest
from tests.vllm.conftest import UseCluster
from tests.vllm.engine_calls import Answer, call

from cluster import Cluster, ClusterSpec, split_engines

CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a river and a mountain"}]})
SPLIT = {"chat": CHAT, "completions": ("/v1/completions", {"prompt": "a river and a mountain"})}
WHOLE = {
    "responses": ("/v1/responses", {"input": "a river and a mountain"}),
    "messages": ("/v1/messages", {"messages": [{"role": "user", "content": "a river and a mountain"}]}),
}
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])


@pytest.fixture
def pair(use_cluster: UseCluster) -> Cluster:
    return use_cluster(ClusterSpec(engines=split_engines()))


def ask(cluster: Cluster, path: str, body: dict, *, stream: bool, **fields: object) -> Answer:
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    answer = call(cluster.proxy_url + path, {"model": "tiny", limit: 8, "stream": stream, **body, **fields})
    assert answer.status == 200, answer
    return answer


def metric(cluster: Cluster, name: str) -> dict[str, float]:
    """The proxy's series of one name, by the value of their only label."""
    text = call(f"{cluster.proxy_url}/metrics").text
    return {label: float(value) for label, value in re.findall(rf'^{name}{{\w+="([^"]*)"}} (\S+)$', text, re.MULTILINE)}


def checks(cluster: Cluster) -> dict[str, float]:
    return metric(cluster, "ppd_prompt_count_checks_total")


@pytest.mark.vllm_smoke
@STREAM
@pytest.mark.parametrize("endpoint", SPLIT)
def test_both_legs_of_an_ordinary_request_count_the_same_prompt(pair: Cluster, endpoint: str, stream: bool) -> None:
    before = checks(pair).get("same", 0)
    answer = ask(pair, *SPLIT[endpoint], stream=stream, user=f"{endpoint} {stream}")
    assert answer.decision.startswith("pd;")
    assert not stream or answer.text.rstrip().endswith("data: [DONE]")
    assert checks(pair) == {"same": before + 1}


@pytest.mark.vllm_smoke
@STREAM
@pytest.mark.parametrize("endpoint", [*SPLIT, *WHOLE])
def test_an_answer_carries_the_proxys_id_and_both_engines_are_known_to_echo(
    pair: Cluster, endpoint: str, stream: bool
) -> None:
    answer = ask(pair, *{**SPLIT, **WHOLE}[endpoint], stream=stream)
    (key,) = re.findall(r'"(?:chatcmpl-|cmpl-|resp_)([0-9a-f]{32})"', answer.text)[:1]
    assert key in answer.text.partition("\n\n")[0]
    echoing = metric(pair, "ppd_engine_echoes_ids")
    assert len(echoing) >= 1
    assert set(echoing.values()) == {1.0}


@pytest.mark.vllm_smoke
@STREAM
@pytest.mark.parametrize("endpoint", SPLIT)
@pytest.mark.parametrize("value", [-1, "-1", -1.0])
def test_a_truncation_that_follows_from_max_tokens_is_never_split(
    pair: Cluster, endpoint: str, value: object, stream: bool
) -> None:
    before = checks(pair)
    answer = ask(pair, *SPLIT[endpoint], stream=stream, truncate_prompt_tokens=value)
    assert answer.decision.startswith("direct;reason=prompt_depends_on_output")
    assert checks(pair) == before


@pytest.mark.vllm_smoke
def test_a_clients_own_ids_and_handoff_parameters_reach_no_engine(pair: Cluster) -> None:
    """The engine would refuse them, or take KV that nobody holds."""
    tag = "___prefill_addr_1.2.3.4:1___decode_addr_1.2.3.4:2_" + "0" * 32
    evil = {"do_remote_prefill": True, "remote_engine_id": "x", "remote_host": "1.2.3.4", "remote_port": 1}
    for path, body in {**SPLIT, **WHOLE}.values():
        own = {"request_id": tag, "kv_transfer_params": evil, "ec_transfer_params": evil}
        answer = ask(pair, path, body, stream=False, **own, vllm_xargs={"kv_transfer_params": evil})
        assert "___" not in answer.text
