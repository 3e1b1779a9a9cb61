"""Speculative decoding on a real engine: what the proxy says of its drafts is what the engine counted."""

import json
import re

from tests.vllm.conftest import UseCluster
from tests.vllm.engine_calls import completion
from tests.vllm.kv_calls import wait_until

from cluster import ClusterSpec, EngineSpec, fetched

POSITIONS = 3
CONFIG = json.dumps({"method": "ngram", "num_speculative_tokens": POSITIONS, "prompt_lookup_max": 4})
SAMPLE = re.compile(r'^ppd_spec_acceptance_\w+{engine="([^"]+)"(?:,position="([^"]+)")?} (\S+)$', re.MULTILINE)


def told(proxy_url: str) -> dict[tuple[str, str], float]:
    """The proxy's figures by engine and position: `all` is the rate over all of them, the empty one the length."""
    text = fetched(f"{proxy_url}/metrics").decode()
    return {(engine, position): float(value) for engine, position, value in SAMPLE.findall(text)}


def test_draft_figures_are_those_of_the_engine(use_cluster: UseCluster) -> None:
    engines = (
        EngineSpec(role="prefill", dtype="float32"),
        EngineSpec(role="decode", dtype="float32", extra_args=("--speculative-config", CONFIG)),
    )
    cluster = use_cluster(ClusterSpec(engines=engines))
    decode = cluster.engine("decode")
    for number in range(6):
        assert completion(cluster.proxy_url, f"{number} " + "river mill river mill " * 20).status == 200
    drafts, proposed, accepted = (
        decode.counter(f"vllm:spec_decode_num_{name}_total") for name in ("drafts", "draft_tokens", "accepted_tokens")
    )
    per_position = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
    expected = {"": 1 + accepted / drafts, "all": accepted / proposed}
    expected |= {str(at): decode.counter(per_position, position=str(at)) / drafts for at in range(POSITIONS)}
    assert 1 < expected[""] < 1 + POSITIONS
    name = decode.url.removeprefix("http://")

    def is_told() -> bool:
        found = told(cluster.proxy_url)
        return {position: round(found.get((name, position), -1.0), 6) for position in expected} == {
            position: round(value, 6) for position, value in expected.items()
        }

    wait_until(is_told, f"the proxy tells {expected} of {name}")
    assert {engine for engine, _ in told(cluster.proxy_url)} == {name}
