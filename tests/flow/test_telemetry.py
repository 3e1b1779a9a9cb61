"""What the metrics and the log say after a scripted set of requests."""

import re

from tests.support.cluster import assistant, fetch, running_cluster, samples_of, until, user

from ppd_proxy.config.sections import Auth, Limits, Metrics
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig

SCRAPED = {"metrics": Metrics(scrape_interval_s=0.1)}


def counted(samples, name):
    """The samples of one counter that are not zero, by their label values in the order of the label names."""
    return {
        tuple(re.findall(r'="([^"]*)"', sample)): value
        for sample, value in samples.items()
        if sample.startswith(name + "{") and value
    }


async def talk(cluster, turns, *, opener="Hello", **fields):
    history = []
    for number in range(turns):
        history.append(user(f"{opener}, part {number}"))
        reply = await cluster.chat(history, **fields)
        assert reply.status == 200
        history.append(assistant(reply.text))
    return history


async def engine_samples(cluster, engine):
    return samples_of((await fetch(cluster.http, "GET", engine.url + "/metrics", None, {})).body.decode())


def total(samples, name, **labels):
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        value
        for sample, value in samples.items()
        if sample.split("{")[0] == name and all(each in sample for each in wanted)
    )


async def test_requests_and_decisions_are_counted_exactly():
    async with running_cluster(limits=Limits(retries=0)) as cluster:
        await talk(cluster, 3)
        await talk(cluster, 2, opener="Bonjour", stream=True)
        await cluster.ask("/mode/pd", {})
        await cluster.chat("In mode pd")
        await cluster.ask("/mode/ppd", {})
        await cluster.complete(["several", "prompts"])
        await cluster.ask("/v1/responses", {"input": "Hi"})
        await cluster.chat("wrong", top_p=9)
        await cluster.ask("/v1/chat/completions", {})
        cluster.decode.faults.add(Fault(kind="status", status=500, times=1))
        await cluster.chat("bad luck")
        await cluster.ask(f"/engines/{cluster.prefill.http_address}/drain", {})
        await cluster.chat("nobody there")
        samples = await cluster.samples()
    assert counted(samples, "ppd_requests_total") == {
        ("pd", "200"): 3, ("direct", "200"): 5, ("pd", "400"): 1, ("pd", "500"): 1, ("none", "400"): 1,
        ("none", "503"): 1,
    }  # fmt: skip
    assert counted(samples, "ppd_route_decisions_total") == {
        ("ppd", "first_turn", "pd"): 4, ("pd", "first_turn", "pd"): 1, ("ppd", "known_history", "direct"): 3,
        ("ppd", "multi_sequence", "direct"): 1, ("ppd", "endpoint_not_split", "direct"): 1,
        ("ppd", "bad_request", "none"): 1, ("ppd", "no_prefill_engine", "none"): 1,
    }  # fmt: skip
    assert samples['ppd_time_to_first_token_seconds_count{route="pd",turn="1"}'] == 1
    assert samples['ppd_time_to_first_token_seconds_count{route="direct",turn="2+"}'] == 1
    assert samples['ppd_inter_token_seconds_count{route="pd"}'] == 1
    assert samples['ppd_request_seconds_count{route="direct"}'] == 5
    assert samples["ppd_conversations"] == 3
    assert not any(counted(samples, "ppd_inflight").values())


async def test_a_retried_request_is_decided_twice_and_counted_once():
    async with running_cluster(decode=2) as cluster:
        for engine in cluster.decodes:
            engine.faults.add(Fault(kind="drop", nth=1))
        assert (await cluster.chat("Hi")).status == 502
        assert (await cluster.chat("Hi")).status == 200
        samples = await cluster.samples()
    assert counted(samples, "ppd_requests_total") == {("pd", "502"): 1, ("pd", "200"): 1}
    assert counted(samples, "ppd_route_decisions_total") == {
        ("ppd", "first_turn", "pd"): 2, ("ppd", "decode_failed", "pd"): 1,
    }  # fmt: skip


async def test_prompt_tokens_by_source_and_transfers_are_what_the_engines_report():
    engine = {"timing": TimingConfig(kv_bytes_per_token=1000, transfer_bytes_per_s=50e6)}
    async with running_cluster(aggregated=1, decode_engine=engine, **SCRAPED) as cluster:
        # Every engine's figures count from its first reading on, which is done when it is asked again.
        await until(lambda: all(each.counts.requests["/metrics"] > 1 for each in cluster.engines))
        await talk(cluster, 4)
        await talk(cluster, 3, opener="Bonjour", stream=True, stream_options={"include_usage": True})
        await cluster.ask("/mode/pd", {})
        await talk(cluster, 3, opener="Hola", stream=True)
        await cluster.complete(["several", "prompts of several tokens"])
        decode = await engine_samples(cluster, cluster.decode)
        whole = await engine_samples(cluster, cluster.aggregated[0])
        by_source = "vllm:prompt_tokens_by_source_total"
        expected = {
            "external_kv": total(decode, by_source, source="external_kv_transfer"),
            "local_cache": total(decode, by_source, source="local_cache_hit"),
            "computed": total(decode, by_source, source="local_compute"),
        }
        moved = total(decode, "vllm:nixl_bytes_transferred_sum")
        assert expected["external_kv"] * 1000 == moved > 0
        samples = await cluster.scraped(
            lambda read: total(read, "ppd_kv_transfer_bytes_total", source="measured") == moved
        )
        tokens = counted(samples, "ppd_prompt_tokens_total")
        for source, value in expected.items():
            assert sum(tokens.get((route, source), 0) for route in ("pd", "direct")) == value, source
        assert tokens["pd", "external_kv"] == expected["external_kv"]
        assert sum(value for (route, _), value in tokens.items() if route == "aggregated") == total(whole, by_source)
        assert not any(source == "unknown" for _, source in tokens)
        seconds = total(decode, "vllm:nixl_xfer_time_seconds_sum") + total(decode, "vllm:nixl_post_time_seconds_sum")
        measured = counted(samples, "ppd_kv_transfer_seconds_total")
        assert set(measured) == {("measured",)}
        assert abs(measured["measured",] - seconds) < 1e-6
        bandwidth = counted(samples, "ppd_kv_transfer_bandwidth_bytes_per_second")
        assert set(bandwidth) == {(cluster.decode.http_address, cluster.prefill.http_address, "measured")}


async def test_prompt_tokens_of_requests_that_are_never_split_are_not_booked_to_pd():
    async with running_cluster(**SCRAPED) as cluster:
        await until(lambda: all(each.counts.requests["/metrics"] > 1 for each in cluster.engines))
        split = (await cluster.chat("Hello")).json["usage"]["prompt_tokens"]
        for path, body in (
            ("/v1/completions", {"prompt": ["several", "prompts of tokens"], "max_tokens": 2}),
            ("/v1/completions", {"prompt": "one prompt", "n": 2, "max_tokens": 2, "stream": True}),
            ("/v1/responses", {"input": "something else"}),
        ):
            assert (await cluster.ask(path, body)).route == "direct"
        decode = await engine_samples(cluster, cluster.decode)
        everything = total(decode, "vllm:prompt_tokens_by_source_total")
        samples = await cluster.scraped(lambda read: total(read, "ppd_prompt_tokens_total") == everything)
        assert total(samples, "ppd_prompt_tokens_total", route="pd") == split
        assert total(samples, "ppd_prompt_tokens_total", route="direct") == everything - split


async def test_engines_that_report_nothing_are_estimated_and_never_mixed():
    async with running_cluster(
        prefill_engine={"handoff": "nixl"}, metrics=Metrics(scrape_interval_s=0, kv_bytes_per_token=10)
    ) as cluster:
        reply = await cluster.chat("Hello there, tell me something")
        samples = await cluster.samples()
        prompt_tokens = reply.json["usage"]["prompt_tokens"]
        assert counted(samples, "ppd_kv_transfer_bytes_total") == {("estimated",): 10 * prompt_tokens}


async def test_engine_states_are_shown_and_forgotten_with_the_engine():
    async with running_cluster() as cluster, running_engine(EngineConfig(role="decode")) as other:
        address = other.http_address
        await cluster.ask("/engines", {"url": other.url, "role": "decode"})
        assert (await cluster.samples())[f'ppd_engine_up{{engine="{address}",role="decode"}}'] == 1
        await cluster.ask(f"/engines/{address}/drain", {})
        assert (await cluster.samples())[f'ppd_engine_up{{engine="{address}",role="decode"}}'] == 1
        await cluster.ask(f"/engines/{address}", method="DELETE")
        assert not [sample for sample in await cluster.samples() if address in sample]


async def test_every_request_is_one_log_line_without_keys_and_texts(capsys):
    key = {"authorization": "Bearer client-key-1"}
    auth = Auth(api_key=("client-key-1",), engine_api_key="engine-key-2")
    async with running_cluster(auth=auth) as cluster:
        history = [user("A very secret question")]
        answer = (await cluster.chat(history, headers=key)).text
        history += [assistant(answer), user("Another secret")]
        await cluster.chat(history, headers=key, stream=True)
        await cluster.chat("secret", headers=key, top_p=9)
        await cluster.chat("secret", headers={"authorization": "Bearer wrong-key-3"})
        await cluster.ask("/v1/chat/completions", b"{secret", method="POST", headers=key)
        cluster.decode.faults.add(Fault(kind="status", status=500))
        await cluster.chat("secret", headers=key)
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if " ppd_proxy.request: " in line]
    fields = [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]
    assert [(each["route"], each["reason"], each["turn"], each["status"]) for each in fields] == [
        ("pd", "first_turn", "1", "200"),
        ("direct", "known_history", "2", "200"),
        ("pd", "first_turn", "1", "400"),
        ("none", "unauthorized", "1", "401"),
        ("none", "bad_request", "1", "400"),
        ("pd", "decode_failed", "1", "500"),
    ]
    assert [" WARNING " in line for line in lines] == [False] * 5 + [True]
    assert len({each["id"] for each in fields}) == 6
    assert fields[0]["decode"] == cluster.decode.http_address
    for word in ("secret", answer[:12], "client-key-1", "engine-key-2", "wrong-key-3"):
        assert word not in said
