"""In bfloat16 a handed-over answer may differ from an unsplit one where two tokens are nearly as likely, no further."""

from itertools import takewhile

from tests.vllm.conftest import UseCluster
from tests.vllm.engine_calls import call, completion
from tests.vllm.kv_calls import ppd_cluster, prompt_of

from cluster import Engine

PROMPTS = 50


def scored(engine: Engine, token_ids: list[int], count: int) -> list[float]:
    """The logprobs of the last `count` of these tokens as the engine's prefill sees them."""
    body = {"model": "tiny", "prompt": token_ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}
    positions = call(f"{engine.url}/v1/completions", body).body["choices"][0]["prompt_logprobs"]
    return [positions[at][str(token_ids[at])]["logprob"] for at in range(len(token_ids) - count, len(token_ids))]


def test_first_differences_are_ties_within_the_measured_noise(use_cluster: UseCluster) -> None:
    engine = {"kv_settings": {"send_type": "PUT_ASYNC"}, "dtype": "bfloat16"}
    cluster = use_cluster(ppd_cluster(decode=engine, prefill=engine, dtype="bfloat16"))
    unsplit = cluster.engine("aggregated")
    noise, margins = [], []
    for seed in range(PROMPTS):
        text = prompt_of(27 + 16 * seed, 7000 + seed)
        split = completion(cluster.proxy_url, text)
        assert split.decision.startswith("pd;"), split
        expected = completion(unsplit.url, text, logprobs=1).body["choices"][0]
        prompt, ids = expected["prompt_token_ids"], expected["token_ids"]
        at_prefill = scored(unsplit, [*prompt, *ids], len(ids))
        noise += [abs(a - b) for a, b in zip(expected["logprobs"]["token_logprobs"], at_prefill, strict=True)]
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(ids, split.token_ids, strict=True))))
        if same < len(ids):
            theirs = [*prompt, *ids[:same], split.token_ids[same]]
            margins.append(at_prefill[same] - scored(unsplit, theirs, 1)[0])
    print(
        f"{PROMPTS - len(margins)} of {PROMPTS} identical; margins of the first differences: {sorted(margins)};"
        f" decode against prefill in the unsplit engine alone: largest {max(noise):.4f} over {len(noise)} tokens"
    )
    assert all(margin <= max(noise) for margin in margins)
